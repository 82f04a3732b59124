"""Captions that any captioner wrote, read from a file and matched with the pictures that have references."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.data.names import KnownPictures
from captioner.data.readers.base import writable
from captioner.data.readers.documents import parsed, values_of
from captioner.data.spreadsheets import unquoted
from captioner.errors import DataError


@dataclass(frozen=True)
class Prediction:
    """The caption of a picture, which is identified by a path or by a COCO number."""

    picture: str | int
    caption: str
    words: tuple[tuple[str, float], ...] = ()  # with probabilities, if the captioner gives them


@dataclass(frozen=True)
class Matched:
    """Predictions by the name that the captions file gives to their picture, and what did not fit."""

    predictions: dict[str, Prediction]  # if a picture has several, the first
    repeated: list[str]  # names of the pictures that have several
    unknown: list[str]  # pictures without references, as the predictions name them


def read_predictions(file: Path) -> list[Prediction]:
    """Read predictions from COCO results JSON, from jsonl with `path` and `caption`, or from csv with those columns.

    The format is recognised from the content. A jsonl line that has an `error` and no caption is a picture that could
    not be captioned; it is passed over. Raises DataError, or OSError if the file cannot be read.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error
    start = text.lstrip()[:1]
    if not start:
        raise DataError(f"{file}: the file is empty")
    try:
        found = list({"[": _coco, "{": _jsonl}.get(start, _csv)(text))
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    if not found:
        raise DataError(f"{file}: holds no captions")
    return found


def _coco(text: str) -> Iterator[Prediction]:
    for number, row in enumerate(parsed(text, "not a JSON file"), start=1):
        picture, caption = values_of(row, "image_id", "caption")
        # A number written as text ("42") is accepted.
        if isinstance(picture, str) and picture.isascii() and picture.isdigit():
            picture = int(picture)
        if type(picture) is not int or not isinstance(caption, str):
            raise DataError(f"entry {number} needs an 'image_id' (a whole number) and a 'caption' (a text)")
        yield Prediction(picture, writable(caption))


def _jsonl(text: str) -> Iterator[Prediction]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = parsed(line, f"line {number} is not JSON")
        path, caption, words, problem = values_of(row, "path", "caption", "words", "error")
        if problem and caption is None:
            continue
        if not isinstance(path, str) or not isinstance(caption, str):
            raise DataError(f"line {number} needs a 'path' and a 'caption' (texts)")
        yield Prediction(path, writable(caption), _words_with_probabilities(words))


def _words_with_probabilities(words: Any) -> tuple[tuple[str, float], ...]:
    """The words and probabilities that `captioner caption --format jsonl` writes; empty if they are something else."""
    try:
        found = tuple((writable(str(item["word"])), float(item["probability"])) for item in words)
    except (TypeError, KeyError, ValueError, OverflowError):
        return ()
    return found if all(0.0 <= probability <= 1.0 for _, probability in found) else ()


def _csv(text: str) -> Iterator[Prediction]:
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if not {"path", "caption"} <= set(rows.fieldnames or ()):
            raise DataError(
                "neither COCO results JSON, nor jsonl with 'path' and 'caption', nor csv whose first line names "
                f"the columns 'path' and 'caption': it begins with {text.lstrip()[:60]!r}"
            )
        for row in rows:
            if row["path"] is None or row["caption"] is None:
                raise DataError(f"line {rows.line_num} has fewer columns than the first line")
            yield Prediction(unquoted(row["path"]), unquoted(row["caption"]))
    except csv.Error as error:
        raise DataError(f"not a csv file ({error})") from error


def match(predictions: Iterable[Prediction], names: Iterable[str], ids: Mapping[str, int] | None = None) -> Matched:
    """Find the picture of each prediction among the `names` that have references.

    A path fits a name if one is an end of the other ("photos/a/1.jpg" and "a/1.jpg"). A COCO number fits the name
    with this number in `ids`, or without `ids` the name that contains it.
    Raises DataError for a path that fits several names, and for names without numbers.
    """
    pictures = KnownPictures(names, ids)
    found: dict[str, Prediction] = {}
    repeated: dict[str, None] = {}
    unknown: list[str] = []
    for prediction in predictions:
        picture = prediction.picture
        name = pictures.numbered(picture) if isinstance(picture, int) else pictures.named(picture)
        if name is None:
            unknown.append(str(picture))
        elif found.setdefault(name, prediction) is not prediction:
            repeated[name] = None
    return Matched(found, list(repeated), unknown)
