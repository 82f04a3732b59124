"""A file of captions that exists: which pictures have a row in it, and how rows are added at its end.

A person may have corrected the captions, sorted the rows or added columns. What is in the file is never changed.
"""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from captioner.bulk.formats import caption_columns, csv_line, csv_lines, is_utf8, json_of, writer
from captioner.bulk.on_disk import OnDisk
from captioner.data.readers.documents import parsed, values_of
from captioner.data.spreadsheets import quoted, unquoted
from captioner.errors import DataError, OutputError, one_line
from captioner.pictures.find import STDIN
from captioner.pictures.load import NAMES

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.results import Row

ADDED_TO = ("text", "jsonl", "csv")  # the formats whose files can grow
REMEDY = "give another file, or replace this one with overwrite (--overwrite)"


class _Line(NamedTuple):
    """A row of a file: its number, the path of its picture, what else must be UTF-8, and the cells or the object."""

    number: int
    path: str
    rest: str
    content: Any = None

    @property
    def key(self) -> str:
        return _key(self.path)

    def digest(self, columns: tuple[str, ...]) -> str:
        """The digest of the picture, if the row has one."""
        named = self.content if isinstance(self.content, dict) else dict(zip(columns, self.content or (), strict=False))
        return str(named.get("digest") or "")


@dataclass(frozen=True)
class Existing:
    """What a file of captions holds, as far as adding to it needs."""

    format: str
    pictures: Mapping[str, str | None]  # the absolute path of each that has a row, with its digest or None
    line_end: str
    ends: bool  # whether its last line has a line end
    columns: tuple[str, ...] = ()  # of csv
    delimiter: str = ","

    def holds(self, path: str) -> bool:
        """Whether a picture has a row."""
        return _key(one_line(path) if self.format == "text" else path) in self.pictures

    @cached_property
    def gone(self) -> dict[str, str | None]:
        """The pictures with a row that are neither where it says nor where a later row has them, with their digests."""
        gone = {path: self.pictures[path] for path in self.pictures if not os.path.lexists(path)}
        digests = {*filter(None, gone.values())}
        alike = [(path, digest) for path, digest in self.pictures.items() if digest in digests] if digests else []
        there = set()
        for path, digest in reversed(alike):
            if path not in gone:
                there.add(digest)
            elif digest in there:
                del gone[path]
        return gone

    def more(self, rows: Iterable[Row]) -> Iterator[str]:
        """The text that adds those rows whose pictures have none yet."""
        new = (row for row in rows if not self.holds(row["path"]))
        return self._added(csv_lines(new, self.columns, self.delimiter) if self.columns else writer(self.format)(new))

    def again(self, file: Path, moved: Mapping[str, str]) -> Iterator[str]:
        """The text that adds the rows of pictures that were moved, as they are but for the path: new paths with old."""
        rows: dict[str, list[_Line]] = {before: [] for before in moved.values()}
        with _opened(file) as text:
            for line in _lines(text, self.format, self.columns, self.delimiter):
                rows.get(line.key, []).append(line)
        return self._added(self._with_path(line, path) for path, before in moved.items() for line in rows[before])

    def _with_path(self, line: _Line, path: str) -> str:
        if self.format == "jsonl":
            return json_of({**line.content, "path": path})
        place = self.columns.index("path")
        return csv_line([*line.content[:place], quoted(path), *line.content[place + 1 :]], self.delimiter)

    def _added(self, lines: Iterable[str]) -> Iterator[str]:
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
        with _opened(file) as text:
            return _read(text, format, num_captions, ends)
    except (DataError, csv.Error) as error:
        reason = one_line(error)
        raise OutputError(f"{file}: exists, and captions cannot be added to it ({reason}): {REMEDY}") from error


def _opened(file: Path) -> IO[str]:
    # File names need not be valid text. With newline="", line ends are kept.
    return file.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _read(text: IO[str], format: str, num_captions: int, ends: bool) -> Existing | None:
    read = []
    for first in text:
        read.append(first)
        if first.strip():
            break
    else:
        return None
    columns, delimiter = _header(first, num_captions) if format == "csv" else ((), ",")
    pictures = OnDisk()
    pictures.put(
        (line.key, line.digest(columns) or None)
        for line in _checked(_lines(chain(read, text), format, columns, delimiter))
        if line.path != STDIN  # which is another picture each time
    )
    end = first[len(first.rstrip("\r\n")) :] or "\n"
    return Existing(format, pictures, end, ends, columns, delimiter)


def _checked(lines: Iterable[_Line]) -> Iterator[_Line]:
    """The lines. Raises DataError for one that is not UTF-8."""
    for line in lines:
        if not (is_utf8(line.rest) and (is_utf8(line.path) or os.path.lexists(line.path))):
            raise DataError(f"line {line.number} is not UTF-8: save the file as UTF-8")
        yield line


def _lines(text: Iterable[str], format: str, columns: tuple[str, ...], delimiter: str) -> Iterator[_Line]:
    if columns:
        return _csv_lines(csv.reader(text, delimiter=delimiter, strict=True), columns.index("path"))
    return _text_lines(text) if format == "text" else _jsonl_lines(text)


def _header(first: str, num_captions: int) -> tuple[tuple[str, ...], str]:
    """The columns of a csv file, and what stands between them."""
    needed = [name for name in caption_columns(num_captions) if name == "path" or name.startswith("caption")]
    for delimiter in (",", ";", "\t"):  # some spreadsheet programs save csv with semicolons or tabs
        columns = tuple(next(csv.reader([first], delimiter=delimiter)))
        if set(needed) <= set(columns):
            return columns, delimiter
    raise DataError(f"its first line does not name the columns {', '.join(needed)}")


def _csv_lines(reader: Iterator[list[str]], place: int) -> Iterator[_Line]:
    for number, cells in enumerate(reader, start=1):
        if cells and len(cells) <= place:
            raise DataError(f"row {number} has no path")
        if cells and number > 1:
            yield _Line(number, unquoted(cells[place]), "".join(cells[:place] + cells[place + 1 :]), cells)


def _text_lines(lines: Iterable[str]) -> Iterator[_Line]:
    for number, line in enumerate(lines, start=1):
        path, tab, rest = line.rstrip("\r\n").partition("\t")
        named = PurePath(path).suffix.lower() in NAMES or path == STDIN or os.path.lexists(path)
        if line.strip() and not (tab and named):
            raise DataError(f"line {number} does not begin with the path of a picture and a tab")
        if named:
            yield _Line(number, path, rest)


def _jsonl_lines(lines: Iterable[str]) -> Iterator[_Line]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            content = parsed(line, f"line {number} is not JSON")
            path, caption = values_of(content, "path", "caption")
            if not isinstance(path, str):
                raise DataError(f"line {number} has no 'path'")
            if caption is not None:  # a row that tells an error is none
                yield _Line(number, path, line, content)


def _key(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100  # a Path for each of very many pictures takes long
