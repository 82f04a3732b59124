"""HTML pages, rendered from the templates in this folder. Jinja2 escapes every text that is put into them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _environment() -> Environment:
    # StrictUndefined: a value that a template lacks is an error, not an empty place on the page.
    return Environment(
        loader=PackageLoader("captioner"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(name: str, **values: Any) -> Iterator[str]:
    """The page of the template `name`, such as "gallery.html", piece by piece.

    Values may be iterators: what they give is rendered as it comes, so that a page of any length takes little memory.
    """
    return _environment().get_template(name).generate(**values)
