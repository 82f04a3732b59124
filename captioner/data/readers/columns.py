"""Captions in named columns: tables such as csv and tsv, and objects in JSON."""

from __future__ import annotations

import csv
import re
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from captioner.data.readers.base import Entry
from captioner.errors import DataError

# Names of columns; the first one that a file has counts.
_IMAGE = (
    *("file_name", "filename", "image_name", "image_file", "image_filename", "image_path", "image", "img"),
    *("file", "path", "filepath", "picture", "photo", "name"),
)
_CAPTION = (
    *("caption", "captions", "comment", "comments", "sentence", "sentences", "description", "descriptions"),
    *("text", "texts", "raw", "alt_text", "prompt"),
)
DELIMITERS = {",": "comma", "\t": "tab", "|": "bar", ";": "semicolon"}
_CONTINUED = 50  # a quoted cell spans at most so many lines, so that a stray quotation mark does not swallow the file


@lru_cache  # nearly all objects in a file have the same names
def _places(names: tuple[str, ...]) -> tuple[int | None, int | None, int | None]:
    """The positions of the columns with the picture, the caption and the split; None for those that are missing."""
    # "Image Name" becomes image_name.
    keys = ["_".join(re.findall(r"[^\s_-]+", name.strip().strip('"').lower())) for name in names]
    image, caption, split = (
        next((keys.index(name) for name in wanted if name in keys), None) for wanted in (_IMAGE, _CAPTION, ["split"])
    )
    return image, caption, split


def delimiter_of(header: str) -> str | None:
    """The delimiter of a table with this first line; None if the line does not name both columns that are needed."""
    return next((mark for mark in DELIMITERS if None not in _places(tuple(header.split(mark)))[:2]), None)


def read_table(lines: Iterable[str], delimiter: str) -> Iterator[Entry]:
    """Read a table; its first line that is not empty names the columns. Raises DataError.

    Cells may be quoted as in csv, and a quoted cell may span several lines. If a line has too many cells, the caption
    is taken to contain the delimiter without quotation marks.
    """
    records = _records(lines, delimiter)
    names = next(records)[2]
    image, caption, split = _places(tuple(names))
    image, caption = image or 0, caption or 0  # `delimiter_of` has found both
    for number, line, cells in records:
        if len(cells) > len(names):
            cells = line.split(delimiter)
            end = caption + 1 + len(cells) - len(names)
            cells[caption:end] = [delimiter.join(cells[caption:end])]
        if len(cells) <= max(image, caption):
            raise DataError(f"line {number} has fewer columns than the first line: {line[:80]!r}")
        yield cells[image].strip(), cells[caption], cells[split] if split is not None and split < len(cells) else ""


def _records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, str, list[str]]]:
    """The number, the text and the cells of each record. A record is one line or several."""
    source = enumerate(lines, start=1)
    ahead: list[tuple[int, str]] = []  # lines that have been read, but that no record has taken yet
    while numbered := ahead.pop(0) if ahead else next(source, None):
        number, line = numbered
        if not line.strip():
            continue
        cells, taken = line.split(delimiter), 0
        if '"' in line:
            ahead.extend(islice(source, _CONTINUED - 1 - len(ahead)))
            physical = (text + "\n" for text in chain([line], (text for _, text in ahead)))
            reader = csv.reader(physical, delimiter=delimiter, strict=True, skipinitialspace=True)
            with suppress(csv.Error):  # in which case the quotation marks belong to the caption
                cells, taken = next(reader), reader.line_num - 1
        yield number, "\n".join([line, *(text for _, text in ahead[:taken])]), cells
        del ahead[:taken]


def entries_of(content: Any, what: str) -> Iterator[Entry]:
    """The entries of a JSON object with a picture and its captions. Raises DataError, naming the object by `what`."""
    if isinstance(content, dict):
        names = tuple(content)
        image, caption, split = _places(names)
        if image is not None and caption is not None:
            name, found = content[names[image]], content[names[caption]]
            texts = found if isinstance(found, list) else ["" if found is None else found]
            if isinstance(name, str) and all(isinstance(text, str) for text in texts):
                where = content[names[split]] if split is not None else ""
                for text in texts:
                    yield name, text, where if isinstance(where, str) else ""
                return
    raise DataError(
        f"{what} needs a picture's name (such as 'image' or 'file_name') and a caption or a list of them "
        f"(such as 'caption' or 'text'): {reprlib.repr(content)}"
    )
