"""The pictures of Markdown (CommonMark) that lack alternative text, with the place of each in the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline, html_inline, image
from markdown_it.token import Token

from captioner.documents import html
from captioner.documents.html import Image

_MAY_BE_EMPTY = re.compile(r"!\[\s*[\]\r\n]")
_LABEL = re.compile(r"!\[[ \t]*(?=\])|!\[")
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")  # as the parser splits lines, unlike str.splitlines
_FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\r?\n(?:.*\n)*?(?:\1|\.\.\.)[ \t]*\r?$", re.MULTILINE)
_Rule = Callable[[StateInline, bool], bool]


def images(text: str) -> Iterator[Image]:
    """The pictures with an empty `![]`, and the `<img>` tags without `alt`, in their order.

    Those in code, in front matter and in HTML comments do not count.
    """
    if not _may_lack(text):
        return
    front = _FRONT_MATTER.match(text)
    # No character changes its place.
    shown = (re.sub(r"[^\r\n]", " ", front[0]) + text[front.end() :] if front else text).replace("\0", "\ufffd")
    lines = [line.span() for line in _LINE.finditer(shown)]
    parser = _parser()
    references: dict[str, Any] = {}
    for token in parser.parse(shown, references):
        if token.type == "inline" and _may_lack(token.content):
            token.children = []
            parser.inline.parse(token.content, parser, references, token.children)
        for found in _in_token(token):
            start = _place(token, found.start, shown, lines)
            after = start + found.place.start - found.start
            end = _LABEL.match(shown, start).end() if found.markdown else after  # type: ignore[union-attr]
            yield replace(found, start=start, place=slice(after, end))


def _may_lack(text: str) -> bool:
    """Whether there may be such a picture: a quick look."""
    return bool(_MAY_BE_EMPTY.search(text)) or html.may_lack(text)


def _in_token(block: Token) -> Iterator[Image]:
    """The pictures of a block, with places in its content."""
    if block.type == "html_block":
        yield from html.images(block.content)
    for token in block.children or ():
        at = token.meta.get("at", 0)
        if token.type == "html_inline":
            for found in html.images(token.content):
                yield replace(found, start=at, place=slice(at + found.place.start, at + found.place.stop))
        elif token.type == "image" and not token.content.strip():
            attributes = {name: str(value) for name, value in token.attrs.items() if name != "alt"}
            yield Image(at, slice(at + 2, at + 2), attributes, "", markdown=True)


def _place(block: Token, at: int, text: str, lines: list[tuple[int, int]]) -> int:
    """Where the character `at` of a block's content stands in the text.

    A line of the content is its line of the text without the marks of lists, quotations and headings. Lines that hold
    nothing but unusual white space may be missing before the first.
    """
    assert block.map
    top = block.content.partition("\n")[0].strip()
    first = next(row for row in range(*block.map) if text.find(top, *lines[row]) >= 0)
    begin = block.content.rfind("\n", 0, at) + 1
    line = block.content[begin:].partition("\n")[0]
    column = at - begin - (len(line) - len(line.lstrip()))
    return text.index(line.strip(), *lines[first + block.content.count("\n", 0, at)]) + column


class _Parser(MarkdownIt):
    def normalizeLink(self, url: str) -> str:
        """The address as people wrote it."""
        return url


@cache
def _parser() -> MarkdownIt:
    """CommonMark. Tables are paragraphs to it: their cells show the same pictures."""
    parser = _Parser("commonmark").disable("inline")  # which takes long, and few blocks need it
    for name, rule in (("image", image), ("html_inline", html_inline)):
        parser.inline.ruler.at(name, partial(_noted, rule))
    return parser


def _noted(rule: _Rule, state: StateInline, silent: bool) -> bool:
    """Apply a rule, and note where its token begins."""
    at = state.pos
    matched = rule(state, silent)
    if matched and not silent:
        state.tokens[-1].meta["at"] = at
    return matched
