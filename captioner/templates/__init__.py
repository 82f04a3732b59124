"""Pages and texts, rendered from the templates in this folder. Every value that is put into them is made safe."""

from __future__ import annotations

import html
from collections.abc import Iterator
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_eval_context
from jinja2.nodes import EvalContext
from markupsafe import Markup


@pass_eval_context
def _safe(context: EvalContext, value: Any) -> Any:
    """A value as HTML, or in a text template without characters that could control a terminal.

    The standard library writes quotation marks as &quot; and &#x27;, Jinja2 in another way. Pages have always been
    written with the former, and the same captions give the same bytes, so that files of two runs can be compared.
    """
    if not context.autoescape:
        return "".join(letter if letter.isprintable() else " " for letter in str(value))
    return value if hasattr(value, "__html__") else Markup(html.escape(str(value)))


@cache
def _environment() -> Environment:
    # StrictUndefined: a value that a template lacks is an error, not an empty place on the page.
    return Environment(
        loader=PackageLoader("captioner"),
        autoescape=lambda name: not (name or "").endswith(".txt"),
        finalize=_safe,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(name: str, **values: Any) -> Iterator[str]:
    """The page or text of the template `name`, such as "gallery.html", piece by piece.

    Values may be iterators. What they give is rendered as it comes, so a page of any length takes little memory.
    """
    return _environment().get_template(name).generate(**values)
