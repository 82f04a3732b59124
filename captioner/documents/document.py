"""Documents as files: which there are, their text without loss, and their text changed at some places only."""

from __future__ import annotations

import codecs
import copy
import hashlib
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO

from captioner.documents import html, markdown
from captioner.documents.html import Image
from captioner.errors import DataError, InputError, OutputError, one_line
from captioner.files import decoded, replacing

MARKDOWN = frozenset({".md", ".markdown", ".mdown", ".mkd", ".mdx"})
XHTML = frozenset({".xhtml", ".xht"})
HTML = frozenset({".html", ".htm"}) | XHTML
EPUB = ".epub"
_MAX_PAGE = 100_000_000  # bytes
_MARKS = (
    *((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")),
    *((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")),
)
_DECLARED = re.compile(rb"""(?i)<(?:meta\b[^>]*?\bcharset|\?xml\b[^>]*?\bencoding)\s*=\s*["']?\s*([\w.:-]+)""")
# What browsers take these names for.
_MEANT = {
    **dict.fromkeys(("iso-8859-1", "latin1", "latin-1", "ascii", "us-ascii"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis"), "cp932"),
    **dict.fromkeys(("utf-16", "utf-16le", "utf-16be"), "utf-8"),  # it could not be read otherwise
    **{"euc-kr": "cp949", "iso-8859-9": "cp1254"},
}
_DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class Page:
    """A text with pictures: a file, or a member of an EPUB. Encoded, `mark` and `text` are the bytes of the file."""

    member: str  # empty where the file is the page
    mark: str
    text: str
    encoding: str
    members: frozenset[str] = frozenset()  # of the EPUB

    @classmethod
    def of(cls, data: bytes, name: str) -> Page:
        """The page in a file's bytes. Raises DataError where that would lose something."""
        found = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
        encoding = found or (not _is(name, MARKDOWN) and _declared(data)) or decoded(data)[1]
        text = ""
        with suppress(UnicodeError):
            text = data.decode(encoding, "surrogateescape")
        if text.encode(encoding, "surrogateescape") != data:
            raise DataError(f"not a text file in {encoding.upper()}: save it as UTF-8")
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        return cls("", mark, text[len(mark) :], encoding)

    def images(self, path: str) -> Iterator[Image]:
        """The pictures without alternative text, in their order. The suffix of `path` says how to read the page."""
        if _is(path, MARKDOWN):
            return markdown.images(self.text)
        return html.images(self.text, xml=_is(path, XHTML | {EPUB}))

    def filled(self, words: Iterable[tuple[Image, str]]) -> bytes:
        """The bytes of the page in which these pictures have alternative text, and nothing else is changed."""
        text = self.text
        for image, alt in sorted(words, key=lambda pair: -pair[0].start):
            written = image.alt(alt).encode(self.encoding, "xmlcharrefreplace").decode(self.encoding)
            text = text[: image.place.start] + written + text[image.place.stop :]
        return (self.mark + text).encode(self.encoding, "surrogateescape")


def find_documents(paths: Iterable[str]) -> list[str]:
    """The documents that are meant by files and folders, each once.

    Folders are searched with their subfolders, except hidden ones and node_modules. Raises InputError for a folder
    without documents, and for another kind of file.
    """
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            here = list(_in_folder(path))
            if not here:
                raise InputError(f"{one_line(path)}: no Markdown, HTML or EPUB in this folder")
            found += here
        elif not os.path.lexists(path):
            raise InputError(f"{one_line(path)}: no such file or folder")
        elif not _is(path, MARKDOWN | HTML | {EPUB}):
            raise InputError(f"{one_line(path)}: is no document: give Markdown (.md), HTML (.html) or EPUB (.epub)")
        else:
            found.append(path)
    by_place: dict[str, str] = {}
    for document in found:
        by_place.setdefault(os.path.realpath(document), document)
    return list(by_place.values())


def _in_folder(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "node_modules")
        for name in sorted(files):
            if not name.startswith(".") and _is(name, MARKDOWN | HTML | {EPUB}):
                yield os.path.join(parent, name)


def read_pages(path: str, data: bytes) -> Iterator[Page]:
    """The pages of a document. Raises DataError."""
    if not _is(path, {EPUB}):
        yield Page.of(data, path)
        return
    with _opened(BytesIO(data)) as book:
        if len(set(book.namelist())) < len(book.namelist()):
            raise DataError("has two members of the same name")
        for info in book.infolist():
            if _is(info.filename, HTML):
                if info.file_size > _MAX_PAGE:
                    raise DataError(f"{one_line(info.filename)}: is larger than {_MAX_PAGE // 1_000_000} MB")
                page = Page.of(book.read(info), info.filename)
                yield replace(page, member=info.filename, members=frozenset(book.namelist()))


def read_member(path: str, member: str, most: int) -> bytes:
    """A picture in an EPUB. Raises DataError where it is damaged or too large."""
    with _opened(path) as book:
        info = book.getinfo(member)
        if info.file_size > most:
            raise DataError(f"{one_line(member)}: is larger than {most // 1_000_000} MB")
        return book.read(info)


def write_document(path: str, digest: str, words: Mapping[str, list[tuple[Image, str]]]) -> None:
    """Write alternative texts into the pages of a document, by member, and change nothing else.

    `digest` is the SHA-256 of the document for which the words were found. Raises OutputError when it has changed.
    """
    data = Path(path).read_bytes()
    with replacing(Path(path), "wb") as file:
        if hashlib.sha256(data).hexdigest() == digest:
            pages = {page.member: page for page in read_pages(path, data)}
            filled = {member: pages[member].filled(alts) for member, alts in words.items()}
            if _is(path, {EPUB}):
                _write_book(data, file, filled)
            else:
                file.write(filled[""])
        if hashlib.sha256(Path(path).read_bytes()).hexdigest() != digest:
            raise OutputError(f"{one_line(path)}: has changed meanwhile and was left alone: run the command again")


def _write_book(data: bytes, file: IO[bytes], pages: Mapping[str, bytes]) -> None:
    """Write an EPUB anew, its members in the same order, with the same dates and kinds of compression."""
    with _opened(BytesIO(data)) as book, zipfile.ZipFile(file, "w") as new:
        new.comment = book.comment
        for info in book.infolist():
            with new.open(copy.copy(info), "w") as target:
                if info.filename in pages:
                    target.write(pages[info.filename])
                else:
                    with book.open(info) as source:
                        shutil.copyfileobj(source, target)


@contextmanager
def _opened(file: str | BytesIO) -> Iterator[zipfile.ZipFile]:
    """An EPUB, which is a zip. Raises DataError for what is damaged, also while it is open."""
    try:
        with zipfile.ZipFile(file) as book:
            yield book
    except _DAMAGED as error:
        raise DataError(f"not an EPUB, or a damaged or protected one ({one_line(error)})") from error


def _declared(data: bytes) -> str | None:
    """The encoding that a page of HTML says it has, if Python knows it."""
    declared = _DECLARED.search(data[:1024])
    if not declared:
        return None
    name = declared[1].decode("ascii").lower()
    try:
        b" ".decode(encoding := _MEANT.get(name, name))
    except (LookupError, UnicodeError):
        return None
    return encoding


def _is(name: str, suffixes: Iterable[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes
