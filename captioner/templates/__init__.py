"""HTML pages, rendered from the templates in this folder. Jinja2 escapes every text that is put into them."""

from __future__ import annotations

import html
from collections.abc import Iterator
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def _escaped(value: Any) -> Any:
    """A value as HTML. Quotation marks are written as &quot; and &#x27;, not as Jinja2 writes them.

    Pages have always been written so, and the same captions give the same bytes: files of two runs can be compared.
    """
    return value if hasattr(value, "__html__") else Markup(html.escape(str(value)))


@cache
def _environment() -> Environment:
    # StrictUndefined: a value that a template lacks is an error, not an empty place on the page.
    loader = PackageLoader("captioner")
    environment = Environment(loader=loader, autoescape=True, finalize=_escaped, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = environment.keep_trailing_newline = True
    return environment


def render(name: str, **values: Any) -> Iterator[str]:
    """The page of the template `name`, such as "gallery.html", piece by piece.

    Values may be iterators. What they give is rendered as it comes, so a page of any length takes little memory.
    """
    return _environment().get_template(name).generate(**values)
