"""Pictures without alternative text: where they are, and what can be done about each."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from captioner.documents.document import read_pages
from captioner.documents.html import Image
from captioner.documents.source import Source, find_source
from captioner.errors import DataError, ImageError, one_line

State: TypeAlias = Literal[
    "lacking", "decorative", "titled", "vector", "remote", "missing", "unreadable", "template", "written", "unsure"
]
_QUOTED = re.compile(r""""[^"]*"|'[^']*'""")
_TEMPLATE = re.compile(r"\{[{%#.]|<[%?]|\$\{|=\s*\{|v-bind=")  # of Jinja, Liquid, PHP, JSX, Vue
_BOUND = re.compile(r"(.*[:.\[])(src|srcset)\]?")
_SPACER = re.compile(r"(?i)(?:^|[-_.])(?:spacer|blank|pixel|transparent|clear|shim|1x1)[-_.0-9]*\.(?:gif|png)$")
_THIN, _TINY = 3, 8  # pixels, of the shorter and of the longer side
_LINE_END = re.compile(r"\r\n?|\n")
_SHOWN = 80  # characters of an address


@dataclass(frozen=True)
class Gap:
    """A picture without alternative text.

    `state` is one of these:
    - lacking: it can have a caption;
    - decorative: it looks as if alt="" were right;
    - titled: a person gave it a title, which may be the right text;
    - vector: an SVG, which captioner cannot see;
    - remote: on the web, and not fetched;
    - missing, unreadable: there is no such file, or no picture in it;
    - template: a program makes its address when it builds the page;
    - written: it has got `text` as its alternative text;
    - unsure: its caption is `text`, but the model is not sure enough of it.
    """

    document: str  # for a page of an EPUB, the path of the EPUB and that of the page in it
    line: int  # from 1
    column: int  # in characters, from 1
    picture: str  # its address as the document has it
    state: State
    note: str  # details of the state, in words
    # What it takes to fill it.
    path: str = field(repr=False)  # of the file that holds the document
    digest: str = field(repr=False)  # of that file, SHA-256
    member: str = field(repr=False)  # of an EPUB
    image: Image = field(repr=False)
    source: Source | None = field(repr=False)
    text: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The gap as plain data, as `captioner alt --format json` prints it."""
        names = ("document", "line", "column", "picture", "state", "note", "text")
        return {name: getattr(self, name) for name in names}


def find_gaps(path: str) -> Iterator[Gap]:
    """The pictures of a document that lack alternative text, in their order.

    Raises DataError, naming the document, when it cannot be read as what its suffix says, and OSError.
    """
    data = Path(path).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    try:
        for page in read_pages(path, data):
            lines = [0, *(end.end() for end in _LINE_END.finditer(page.text))]
            for image in page.images(path):
                address = _address(image)
                source = find_source(address, path, page.member, page.members)
                state, note = _state(image, address, source)
                # An empty ![] is Markdown's way to say that a picture is decorative.
                if state and not (image.markdown and state == "decorative"):
                    row = bisect_right(lines, image.start)
                    place = (f"{path}/{page.member}" if page.member else path, row, image.start - lines[row - 1] + 1)
                    yield Gap(*place, _shown(address), state, note, path, digest, page.member, image, source)
    except DataError as error:
        raise DataError(f"{one_line(path)}: {error}") from error


def _state(image: Image, address: str, source: Source | None) -> tuple[State | None, str]:
    """The state of a picture, and what is to be said about it; None where it may have alternative text."""
    attributes, bare = image.attributes, _QUOTED.sub("", image.tag)
    if _TEMPLATE.search(bare) or _TEMPLATE.search(address) or any(map(_BOUND.fullmatch, attributes)):
        return (None if re.search(r"\balt\b", image.tag) else "template"), "its address is made when the page is built"
    if title := attributes.get("title", "").strip():
        return "titled", f"its title may be the right one: {one_line(title)}"
    if reason := _decorative(attributes, address):
        return "decorative", reason
    if source is None:
        return "missing", "no such file" if address else "the tag names no picture"
    if source.remote:
        return "remote", "on the web: --write --fetch captions it"
    if address.lower().startswith("data:image/svg") or source.name.lower().endswith((".svg", ".svgz")):
        return "vector", "an SVG, which captioner cannot see"
    try:
        width, height = source.size()
    except ImageError as error:
        return "unreadable", str(error)
    if is_tiny(width, height):
        return "decorative", f"{width} x {height} pixels"
    return "lacking", ""


def is_tiny(width: int, height: int) -> bool:
    """Whether a picture of this size, in pixels, is a dot or a line that nobody describes."""
    return min(width, height) <= _THIN or max(width, height) <= _TINY


def _decorative(attributes: Mapping[str, str], address: str) -> str:
    """Why a picture looks decorative, by its tag; nothing if it does not."""
    for name, values in (("role", ("presentation", "none")), ("aria-hidden", ("true",))):
        if attributes.get(name, "").strip().lower() in values:
            return f'{name}="{attributes[name].strip()}"'
    for name in ("width", "height"):
        pixels = attributes.get(name, "").strip().removesuffix("px")
        if pixels.isdecimal() and int(pixels) <= _THIN:
            return f'{name}="{pixels}"'
    return "its name is that of a spacer" if _SPACER.search(address.partition("?")[0].rpartition("/")[2]) else ""


def _address(image: Image) -> str:
    """The address of the picture; of one that a script loads later, that which the script will use."""
    attributes = image.attributes
    candidates = (attributes.get(name, "").strip() for name in ("data-src", "data-original", "src"))
    return next(filter(None, candidates), attributes.get("srcset", "").strip().partition(" ")[0].rstrip(","))


def _shown(address: str) -> str:
    return address if len(address) <= _SHOWN or not address.startswith("data:") else f"{address[:_SHOWN]}..."
