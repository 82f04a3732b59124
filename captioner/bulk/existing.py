"""A file of captions that exists: which pictures have a row in it, and how rows are added at its end.

A person may have corrected the captions, sorted the rows or added columns. What is in the file is never changed.
"""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING

from captioner.bulk.formats import caption_columns, csv_lines, writer
from captioner.data.readers.documents import parsed, values_of
from captioner.data.spreadsheets import unquoted
from captioner.errors import DataError, OutputError, one_line
from captioner.pictures.find import STDIN
from captioner.pictures.load import NAMES

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.results import Row

ADDED_TO = ("text", "jsonl", "csv")  # the formats whose files can grow
REMEDY = "give another file, or replace this one with overwrite (--overwrite)"


@dataclass(frozen=True)
class Existing:
    """What a file of captions holds, as far as adding to it needs."""

    format: str
    pictures: frozenset[str]  # the absolute paths of those that have a row
    line_end: str
    ends: bool  # whether its last line has a line end
    columns: tuple[str, ...] = ()  # of csv
    delimiter: str = ","

    def holds(self, path: str) -> bool:
        """Whether a picture has a row."""
        return _key(one_line(path) if self.format == "text" else path) in self.pictures

    def gone(self) -> list[str]:
        """The pictures with a row that are not where it says; they may have been moved."""
        return sorted(path for path in self.pictures if not os.path.lexists(path))

    def more(self, rows: Iterable[Row]) -> Iterator[str]:
        """The text that adds those rows whose pictures have none yet."""
        new = (row for row in rows if not self.holds(row["path"]))
        lines = csv_lines(new, self.columns, self.delimiter) if self.columns else writer(self.format)(new)
        before = "" if self.ends else self.line_end
        for line in lines:
            yield before + line.removesuffix("\n") + self.line_end
            before = ""


def read_existing(file: Path, format: str, num_captions: int) -> Existing | None:
    """What is in a file of text, jsonl or csv; None if there is no such file, or nothing in it.

    Raises OutputError for a file to which rows cannot be added without harm: it has another encoding than UTF-8, lacks
    the columns that are needed, or is damaged.
    """
    if not file.is_file():
        return None
    try:
        with file.open("rb") as raw:
            if raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise DataError("it is UTF-16: save it as UTF-8")
            raw.seek(max(0, raw.seek(0, os.SEEK_END) - 1))
            ends = raw.read() in (b"\n", b"\r")
        # File names need not be valid text. With newline="", line ends are kept.
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            return _read(text, format, num_captions, ends)
    except (DataError, csv.Error) as error:
        reason = one_line(error)
        raise OutputError(f"{file}: exists, and captions cannot be added to it ({reason}): {REMEDY}") from error


def _read(text: IO[str], format: str, num_captions: int, ends: bool) -> Existing | None:
    read = []
    for first in text:
        read.append(first)
        if first.strip():
            break
    else:
        return None
    lines, delimiter = chain(read, text), ","
    columns: tuple[str, ...] = ()
    if format == "csv":
        columns, delimiter = _header(first, num_captions)
        rows = _csv_rows(csv.reader(lines, delimiter=delimiter, strict=True), columns)
    else:
        rows = _text_rows(lines) if format == "text" else _jsonl_rows(lines)
    pictures = set()
    for number, path, rest in rows:
        if not (_is_utf8(rest) and (_is_utf8(path) or os.path.lexists(path))):
            raise DataError(f"line {number} is not UTF-8: save the file as UTF-8")
        if path != STDIN:  # which is another picture each time
            pictures.add(_key(path))
    return Existing(format, frozenset(pictures), first[len(first.rstrip("\r\n")) :] or "\n", ends, columns, delimiter)


def _header(first: str, num_captions: int) -> tuple[tuple[str, ...], str]:
    """The columns of a csv file, and what stands between them."""
    needed = [name for name in caption_columns(num_captions) if name == "path" or name.startswith("caption")]
    for delimiter in (",", ";", "\t"):  # some spreadsheet programs save csv with semicolons or tabs
        columns = tuple(next(csv.reader([first], delimiter=delimiter)))
        if set(needed) <= set(columns):
            return columns, delimiter
    raise DataError(f"its first line does not name the columns {', '.join(needed)}")


# Each of these yields the number of a line, the path of its picture, and what else must be UTF-8.
def _csv_rows(reader: Iterator[list[str]], columns: tuple[str, ...]) -> Iterator[tuple[int, str, str]]:
    place = columns.index("path")
    for number, cells in enumerate(reader, start=1):
        if cells and len(cells) <= place:
            raise DataError(f"row {number} has no path")
        if cells and number > 1:
            yield number, unquoted(cells[place]), "".join(cells[:place] + cells[place + 1 :])


def _text_rows(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, start=1):
        path, tab, rest = line.rstrip("\r\n").partition("\t")
        named = PurePath(path).suffix.lower() in NAMES or path == STDIN or os.path.lexists(path)
        if line.strip() and not (tab and named):
            raise DataError(f"line {number} does not begin with the path of a picture and a tab")
        if named:
            yield number, path, rest


def _jsonl_rows(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            path, caption = values_of(parsed(line, f"line {number} is not JSON"), "path", "caption")
            if not isinstance(path, str):
                raise DataError(f"line {number} has no 'path'")
            if caption is not None:  # a row that tells an error is none
                yield number, path, line


def _is_utf8(text: str) -> bool:
    """Whether the text has no bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(path: str) -> str:
    return os.path.normpath(Path(path).absolute())
