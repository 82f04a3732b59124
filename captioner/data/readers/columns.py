"""Captions in columns: tables such as csv and tsv, with or without a first line that names the columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice

from captioner.data.readers.base import Entry, bare, names_picture
from captioner.data.readers.wording import texts_of
from captioner.data.spreadsheets import unquoted
from captioner.errors import DataError, some

# Names of columns, and of values in JSON; the first one that a file has counts.
IMAGE = (
    *("file_name", "filename", "image_path", "image_file", "image_filename", "image_name", "image", "img"),
    *("file", "path", "filepath", "picture", "photo", "name", "image_url", "url", "image_id", "id"),
)
CAPTION = (
    *("caption", "captions", "caption_str", "comment", "comments", "sentence", "sentences"),
    *("description", "descriptions", "text", "texts", "raw", "alt_text", "prompt"),
)
SPLIT = ("split", "set_name")
NUMBER = ("image_id", "img_id", "imgid", "cocoid")  # what COCO's results call image_id
_NUMBERED = re.compile(rf"(?:{'|'.join(CAPTION)})_?\d+")  # caption_0, caption_1, ...
DELIMITERS = {",": "comma", "\t": "tab", "|": "bar", ";": "semicolon"}
_CONTINUED = 50  # a quoted cell spans at most so many lines, so that a stray quotation mark does not swallow the file


@dataclass(frozen=True)
class Columns:
    """Where a table has what: positions of columns, None for those that it lacks."""

    delimiter: str
    names: tuple[str, ...]  # empty for a table whose columns have no names
    image: int
    captions: tuple[int, ...]
    split: int | None = None
    number: int | None = None

    @property
    def form(self) -> str:
        """The layout in words."""
        return f"{DELIMITERS[self.delimiter]}-separated table{'' if self.names else ' without names of columns'}"


def key_of(name: str) -> str:
    """The name of a column as it stands in IMAGE and the others: "Image Name" becomes image_name."""
    return "_".join(re.findall(r"[^\s_-]+", name.strip().strip('"').lower()))


@lru_cache  # nearly all objects in a file have the same names
def places_of(names: tuple[str, ...]) -> tuple[list[int], int | None, int | None, int | None]:
    """The positions of the columns that may name the picture, the best first; of the caption, the split and the id."""
    keys = [key_of(name) for name in names]
    caption, split, number = (
        next((keys.index(name) for name in wanted if name in keys), None) for wanted in (CAPTION, SPLIT, NUMBER)
    )
    return [keys.index(name) for name in IMAGE if name in keys], caption, split, number


def columns_of(first: str) -> Columns | None:
    """The columns of a table with this first line. None if it neither names them nor has the name of a picture."""
    for delimiter in DELIMITERS:
        names = tuple(first.split(delimiter))
        images, caption, split, number = places_of(names)
        captions = tuple(place for place, name in enumerate(names) if _NUMBERED.fullmatch(key_of(name)))
        captions = captions if caption is None else (caption,)
        if images and captions:
            return Columns(delimiter, names, images[0], captions, split, number)
    for delimiter in DELIMITERS:
        cells = [cell.strip().strip('"') for cell in _cells(first, delimiter)]
        if len(cells) > 1 and names_picture(cells[0]):
            numbered = len(cells) > 2 and cells[1].lstrip("#").isdigit()  # NAME.jpg,0,A caption
            return Columns(delimiter, (), 0, (2 if numbered else 1,))
        if len(cells) > 1 and delimiter == "\t" and names_picture(cells[1]):  # Conceptual Captions
            return Columns(delimiter, (), 1, (0,))
    return None


def read_table(lines: Iterable[str], columns: Columns, notes: list[str]) -> Iterator[Entry]:
    """Read a table with lines that still have their ends. Stray quotation marks are noted. Raises DataError.

    Cells may be quoted as in csv, and a quoted cell may span several lines. If a line has too many cells, the caption
    is taken to contain the delimiter without quotation marks.
    """
    image, stray = columns.image, list[int]()
    records = _records(lines, columns, stray)
    names = next(records)[2] if columns.names else []
    keys = list(map(key_of, names))
    ours = {"path", "caption"} <= set(keys)  # `captioner caption -f csv` quotes formulas
    unsure = keys.index("unsure") if ours and "unsure" in keys else None
    for number, line, cells in records:
        if not names:
            cells = _without_names(columns, cells, f"line {number}", line)
        elif len(cells) > len(names):
            cells = _with_delimiter(line, columns)
        if len(cells) <= max(image, columns.captions[0]):
            raise DataError(f"line {number} has fewer columns than the first line: {line[:80]!r}")
        try:
            # `captioner caption` writes further captions of a picture after further tabs.
            more = range(columns.captions[0] + 1, len(cells)) if not names and not image else ()
            lists = [texts_of(cells[place]) or [] for place in (*columns.captions, *more) if place < len(cells)]
        except DataError as error:
            raise DataError(f"line {number} has {error}") from error
        name, *texts = map(unquoted, (cells[image], *chain(*lists))) if ours else (cells[image], *chain(*lists))
        places = (columns.split, columns.number, unsure)
        split, its, doubt = ("" if at is None or at >= len(cells) else cells[at] for at in places)
        yield Entry(name.strip(" "), texts, split, its.strip() or None, unsure=None if unsure is None else doubt)
    if stray:
        notes.append(f"stray quotation marks, which are kept, in lines: {some(list(map(str, stray)), 5)}")


def _without_names(columns: Columns, cells: list[str], where: str, line: str) -> list[str]:
    """The cells of a line of a table without names of columns: the picture and one caption. Raises DataError."""
    start = columns.captions[0]
    if len(cells) <= max(columns.image, start) or not names_picture(cells[columns.image]):
        raise DataError(
            f"{where} does not name a picture in column {columns.image + 1}, as the first line does: {line[:80]!r}"
        )
    return cells if columns.delimiter == "\t" else [*cells[:start], columns.delimiter.join(cells[start:])]


def _with_delimiter(line: str, columns: Columns) -> list[str]:
    """The cells of a line that has too many, because the caption contains the delimiter without quotation marks."""
    start = columns.captions[0]
    cells = quoted = line.split(columns.delimiter)
    if '"' in line:
        quoted = _cells(line, columns.delimiter, spaces=True)
    end = start + 1 + len(cells) - len(columns.names)
    if any(cell.count('"') % 2 for cell in (*cells[:start], *cells[end:])):  # these contain the delimiter in quotes
        cells, end = quoted, start + 1 + len(quoted) - len(columns.names)
    caption = columns.delimiter.join(cells[start:end])
    return [*quoted[:start], caption, *quoted[len(quoted) - len(cells[end:]) :]]


def _cells(line: str, delimiter: str, spaces: bool = False) -> list[str]:
    """The cells of one line, quoted or not; with `spaces`, those after a delimiter stay."""
    with suppress(csv.Error, StopIteration):
        return next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=not spaces))
    return line.split(delimiter)


def _records(lines: Iterable[str], columns: Columns, stray: list[int]) -> Iterator[tuple[int, str, list[str]]]:
    """The number, the text and the cells of each record. A record is one line or several.

    The numbers of lines with a quotation mark that quotes nothing are added to `stray`.
    """
    delimiter = columns.delimiter
    source = enumerate(lines, start=1)
    ahead: list[tuple[int, str]] = []  # lines that have been read, but that no record has taken yet
    while numbered := ahead.pop(0) if ahead else next(source, None):
        number, line = numbered[0], bare(numbered[1])
        if not line.strip():
            continue
        cells, taken = line.split(delimiter), 0
        if '"' in line:
            ahead.extend(islice(source, _CONTINUED - 1 - len(ahead)))
            physical = chain([numbered[1].lstrip("\ufeff")], (text for _, text in ahead))
            reader = csv.reader(physical, delimiter=delimiter, strict=True, skipinitialspace=True)
            with suppress(csv.Error):  # in which case the quotation marks belong to the caption
                quoted, more = next(reader), reader.line_num - 1
                parts = [line, *(bare(text) for _, text in ahead[:more])]
                # One line of a cell that spans several has the picture. Another one is a row by itself.
                others = parts[1:] if columns.image < columns.captions[0] else parts[:-1]
                if not any(_is_row(text, quoted, columns) for text in others):
                    cells, taken = quoted, more
            if not taken and line.count('"') % 2:
                stray.append(number)
        yield number, "\n".join([line, *(bare(text) for _, text in ahead[:taken])]), cells
        del ahead[:taken]


def _is_row(line: str, cells: list[str], columns: Columns) -> bool:
    """Whether a line names a picture where the table has them, by a suffix or by a number like that in `cells`."""
    parts = line.split(columns.delimiter)
    if len(parts) <= max(columns.image, columns.captions[0]) or len(cells) <= columns.image:
        return False
    if parts[columns.image].count('"') % 2:  # the end of a name of several lines
        return False
    name, other = parts[columns.image].strip(' "'), cells[columns.image].strip()
    alike = re.sub(r"[0-9a-f]+", "0", name) == re.sub(r"[0-9a-f]+", "0", other)
    return names_picture(name) or (alike and any(map(str.isdigit, name)))
