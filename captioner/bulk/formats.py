"""The formats in which captions are written: text, jsonl, csv, coco, html, and sidecar files.

A format is a function from rows to pieces of text. It takes rows one by one, so the number of pictures does not matter.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

from captioner.bulk.on_disk import distinct
from captioner.data.names import image_id
from captioner.data.spreadsheets import quoted
from captioner.errors import OptionError, one_line
from captioner.files import without_suffix
from captioner.pictures.load import NAMES, thumbnail

if TYPE_CHECKING:  # they import torch, or this module
    from captioner.bulk.gallery import Page
    from captioner.inference.results import Row

Writer: TypeAlias = "Callable[..., Iterator[str]]"  # of rows; the one of html also takes a page
FORMAT_OF_SUFFIX = {
    **{".txt": "text", ".tsv": "text", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"},
    **{".json": "coco", ".html": "html", ".htm": "html"},
}
_EXTENSION = re.compile(r"\.\w[\w.-]*")
NOT_WRITTEN = (".xlsx", ".xls", ".ods")  # whatever format is asked for, no program would open such a file


def format_of(file: Path) -> str:
    """The format that the suffix of an output stands for. Raises OptionError for a suffix of no format."""
    suffix = file.suffix.lower()
    if suffix in NOT_WRITTEN:
        raise OptionError(f"{file}: captioner does not write {suffix}: give a .csv, which spreadsheet programs open")
    if suffix and suffix not in FORMAT_OF_SUFFIX:
        known = ", ".join(FORMAT_OF_SUFFIX)
        raise OptionError(f"{file}: no format is known by {suffix}: give a name in {known}, or add format (--format)")
    return FORMAT_OF_SUFFIX.get(suffix, "text")


def writer(
    format: str,
    num_captions: int = 1,
    coco_ids: Mapping[str, int] | None = None,
    preview: Callable[[str], str | None] = thumbnail,
) -> Writer:
    """The function that renders rows as text, jsonl, csv, coco or html.

    `num_captions` sets the number of columns in csv. `coco_ids` maps file names to the image ids that coco needs.
    `preview` gives the thumbnails of html, as in `gallery`.
    """
    table, results = partial(csv_table, num_captions=num_captions), partial(coco, ids=coco_ids)
    page = partial(gallery, preview=preview)
    writers: dict[str, Writer] = {"text": text, "jsonl": jsonl, "csv": table, "coco": results, "html": page}
    return writers[format]


def text(rows: Iterable[Row]) -> Iterator[str]:
    """One line a picture: PATH<TAB>caption, and further captions after further tabs."""
    for row in rows:
        # In a file name, a tab or a line end would break the line, and other control characters could harm a terminal.
        texts = (" ".join(re.split(r"[\t\r\n]+", caption)) for caption in _all_texts(row))  # a person's may have them
        yield "\t".join([one_line(row["path"]), *texts]) + "\n"


def jsonl(rows: Iterable[Row]) -> Iterator[str]:
    """One JSON object a picture: path, caption, logprob, words with probabilities, alternatives."""
    for row in rows:
        yield json_of(row) + "\n"


def csv_table(rows: Iterable[Row], num_captions: int = 1) -> Iterator[str]:
    """The columns path, caption and logprob, caption_2 to caption_N where several captions were asked for, and
    confidence, familiar, unsure, tags with commas between them, and the digest of the picture.

    Texts are safe to open in a spreadsheet (see `data.spreadsheets`). They stand in quotation marks, because some
    spreadsheets take a semicolon in an unquoted file name for the end of the cell.
    """
    columns = caption_columns(num_captions)
    yield csv_line(columns)
    yield from csv_lines(rows, columns)


def caption_columns(num_captions: int) -> list[str]:
    """The names of the columns of a csv file."""
    others = [f"caption_{n}" for n in range(2, num_captions + 1)]
    return ["path", "caption", "logprob", *others, "confidence", "familiar", "unsure", "tags", "digest"]


def csv_lines(rows: Iterable[Row], columns: Sequence[str], delimiter: str = ",") -> Iterator[str]:
    """The lines of a csv file below its names. A column that no caption fills stays empty."""
    for row in rows:
        texts = {f"caption_{n}": quoted(caption) for n, caption in enumerate(_all_texts(row), start=1)}
        known = {"path": quoted(row["path"]), "caption": texts["caption_1"]}
        if "logprob" in row:  # of captions that were read from files nobody knows it
            known["logprob"] = round(row["logprob"], 6)
        known |= {name: row[name] for name in ("confidence", "familiar", "unsure", "digest") if name in row}
        if tags := row.get("tags"):
            known["tags"] = quoted(", ".join(tag["word"] for tag in tags))
        yield csv_line([{**texts, **known}.get(name, "") for name in columns], delimiter)


def csv_line(cells: Iterable[object], delimiter: str = ",") -> str:
    """One line of a csv file."""
    file: Any = SimpleNamespace(write=str)  # `writerow` returns what the `write` of its file returns
    line = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(cells)
    return str(line)


def coco(rows: Iterable[Row], ids: Mapping[str, int] | None = None) -> Iterator[str]:
    """COCO's results JSON: a list of {"image_id", "caption"}. Raises DataError for a picture without an id."""
    separator = "[\n"
    for row in filter(itemgetter("caption"), rows):
        yield separator + json_of({"image_id": image_id(row["path"], ids), "caption": row["caption"]})
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def gallery(
    rows: Iterable[Row], preview: Callable[[str], str | None] = thumbnail, page: Page | None = None
) -> Iterator[str]:
    """An HTML page that needs no other file: thumbnails, captions and a box to filter them.

    `preview` gives the thumbnail of a picture as a `data:` URI by its path, or None when there is none. `page` is given
    if there are further pages, which it has links to.
    """
    from captioner.templates import render  # imports Jinja2, for which other formats need not wait

    pictures = ((row, PurePath(row["path"]).name, preview(row["path"]), _sure(row)) for row in rows)
    return render("gallery.html", pictures=pictures, page=page)


def in_ascii(format: str, pieces: Iterable[str]) -> Iterator[str]:
    """The same JSON or HTML in ASCII, which is right in every encoding; other formats as they are."""
    for piece in pieces:
        if format in ("jsonl", "coco"):
            piece = re.sub(r"[^\x00-\x7f]", lambda letter: json.dumps(letter[0])[1:-1], piece)
        elif format == "html":
            piece = piece.encode("ascii", "xmlcharrefreplace").decode()
        yield piece


def check_extension(extension: str) -> None:
    """Raise OptionError for an extension that text files beside pictures cannot have."""
    if extension and not _EXTENSION.fullmatch(extension):
        raise OptionError(f"extension (--extension) must be like .txt or .caption, not {extension!r}")
    if extension.lower() in NAMES:
        raise OptionError(f"extension (--extension) {extension} is that of pictures: give another")


def sidecar_names(paths: Collection[str]) -> Callable[[str, str], str]:
    """What gives the text file beside one of the pictures, by its path and an extension.

    It is photo.txt, or photo.jpg.txt where another picture is called photo as well.
    """
    stems, shared = distinct(map(_stem, paths)), set[str]()
    if len(stems) < len(paths):
        left = iter(stems)
        first = next(left)
        for stem in map(_stem, paths):
            if stem == first:
                first = next(left, "")
            else:
                shared.add(stem)

    def name(path: str, extension: str) -> str:
        return (path if shared and _stem(path) in shared else without_suffix(path)) + extension

    return name


def _stem(path: str) -> str:
    return os.path.normcase(os.path.normpath(without_suffix(path)))


def sidecar_text(row: Row, prefix: str = "", suffix: str = "") -> str:
    """The content of a sidecar: one line a caption."""
    return "".join(f"{prefix}{caption}{suffix}\n" for caption in _all_texts(row))


def _sure(row: Row) -> str:
    """How sure the model is of a caption, in percent: its confidence, or else the geometric mean of the probabilities
    of the words, and of the end where the caption has one.
    """
    if "score" in row:  # of a picture that was found
        return f"{row['score']:.2f}"
    if row.get("author") == "person":
        return "by a person"
    if "confidence" in row:
        return ", ".join([f"{100 * row['confidence']:.0f} % sure", *filter(None, [row.get("unsure")])])
    if "words" not in row:  # of a caption that was read from a file
        return "by captioner"
    steps = len(row["words"]) + (row["end_probability"] is not None)
    return f"{100 * math.exp(row['logprob'] / max(1, steps)):.0f} % a word"


def _all_texts(row: Row) -> list[str]:
    return [row["caption"], *(other["caption"] for other in row.get("alternatives", ()))]


def json_of(value: Row) -> str:
    """JSON in readable UTF-8, or in ASCII where a file name is not valid text."""
    line = json.dumps(value, ensure_ascii=False)
    return line if is_utf8(line) else json.dumps(value)


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8. One with bytes of a file name that are not cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
