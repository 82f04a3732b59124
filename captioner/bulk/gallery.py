"""A gallery of any number of pictures: a web page, and further pages in a folder beside it.

No browser opens a page of a million thumbnails. captions.html is therefore the first page, and
captions.html-pages/2.html, captions.html-pages/3.html and so on are the others. A gallery of few pictures is one file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from captioner.bulk.existing import REMEDY
from captioner.bulk.outputs import OneFile, check_folder
from captioner.errors import OutputError
from captioner.files import replacing

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.results import Row

PICTURES = 1000  # on a page: about 7 MB
_MARK = b'<meta name="generator" content="captioner gallery">'  # of all but the first
_HEAD = 200  # bytes in which the mark is
_STEPS = (0, 1, 2, 10, 100, 1000)  # from a page to those that it has links to


@dataclass(frozen=True)
class Page:
    """One of several pages. The first is the gallery's file."""

    file: Path
    number: int
    last: int

    def near(self) -> list[int]:
        """The numbers of the pages that this one has links to, and its own."""
        reached = {self.number + sign * step for step in _STEPS for sign in (-1, 1)}
        return sorted({1, self.last} | {number for number in reached if 1 <= number <= self.last})

    def address(self, number: int) -> str:
        """The address of another page, as seen from this one."""
        to = page_file(self.file, number)
        names = to.parts[-2:] if self.number == 1 else ("..", to.name) if number == 1 else (to.name,)
        return "/".join(quote(name, errors="surrogateescape") for name in names)


def page_file(file: Path, number: int) -> Path:
    """The file of one of the pages of a gallery."""
    return file if number == 1 else file.with_name(f"{file.name}-pages") / f"{number}.html"


def _is_ours(page: Path) -> bool:
    with page.open("rb") as file:
        return _MARK in file.read(_HEAD)


class Gallery(OneFile):
    """The file, and the folder of its other pages. Where it overwrites a larger gallery, it deletes the pages left."""

    def check(self, paths: Collection[str]) -> None:
        """No other file may be where a page goes, nor a page of another gallery, unless it is overwritten."""
        super().check(paths)
        folder = page_file(self._file, 2).parent
        if not self.journal or len(paths) <= PICTURES or not folder.exists():
            return
        resumed = self.journal.exists()  # a run that was killed may have written some of them
        if page_file(self._file, 2).exists() and not (self._overwrite or resumed):
            raise OutputError(f"{folder}: has pages of a gallery whose first page is gone: {REMEDY}")
        if not folder.is_dir():
            raise OutputError(f"{folder}: is a file, where the pages of the gallery should go: move it away")
        check_folder(folder, folder)
        for number in range(2, 2 + (len(paths) - 1) // PICTURES):
            if (page := page_file(self._file, number)).exists() and not _is_ours(page):
                raise OutputError(f"{page}: exists, and is no page of a gallery: move it away")

    def write(self, rows: Iterable[Row]) -> None:
        """Write the other pages before the first takes its place. On /dev/stdout, there is one page."""
        last = max(1, -(-len(rows) // PICTURES)) if isinstance(rows, Sized) else 1
        if last == 1:
            super().write(rows)
        else:
            self._look()
            left = iter(rows)
            with replacing(self._file, "wb") as first:
                first.writelines(self._page(1, last, left))
                for number in range(2, last + 1):
                    with replacing(page_file(self._file, number), "wb") as other:
                        other.writelines(self._page(number, last, left))
        if self._overwrite:
            self._delete_after(last)

    def _page(self, number: int, last: int, rows: Iterator[Row]) -> Iterator[bytes]:
        pieces = self._render(islice(rows, PICTURES), page=Page(self._file, number, last))
        return (piece.encode(errors="surrogateescape") for piece in pieces)

    def _delete_after(self, last: int) -> None:
        """Delete the pages of ours that a larger gallery had after the last of this one."""
        pages = (page_file(self._file, number) for number in count(last + 1))
        for page in takewhile(lambda page: page.is_file() and _is_ours(page), pages):
            page.unlink()
            with suppress(OSError):  # it holds other files
                page.parent.rmdir()
