"""Captions that any captioner wrote, from a file, matched with the pictures that have references."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from captioner.data.names import image_id
from captioner.data.readers.base import writable
from captioner.data.spreadsheets import unquoted
from captioner.errors import DataError


@dataclass(frozen=True)
class Prediction:
    """The caption of a picture, which is named by a path or by a COCO number."""

    picture: str | int
    caption: str
    words: tuple[tuple[str, float], ...] = ()  # with their probabilities, where the captioner gives them


@dataclass(frozen=True)
class Matched:
    """Predictions by the name that the captions file has for their picture, and what did not fit."""

    predictions: dict[str, Prediction]  # of several for a picture, the first
    repeated: list[str]  # names of pictures with several
    unknown: list[str]  # pictures, as the predictions name them, that have no references


def read_predictions(file: Path) -> list[Prediction]:
    """Predictions from COCO results JSON, from jsonl (`path` and `caption`) or from csv with those two columns.

    The content says which of them it is. A jsonl line without a caption but with an `error` is a picture that could
    not be captioned, and gives none. Raises DataError, OSError when the file cannot be read.
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
    for number, row in enumerate(_parsed(text, "not a JSON file"), start=1):
        picture = row.get("image_id") if isinstance(row, dict) else None
        # An id written as text ("42") is taken for a number; anything else would match nothing.
        if isinstance(picture, str) and picture.isascii() and picture.isdigit():
            picture = int(picture)
        if type(picture) is not int or not isinstance(row.get("caption"), str):
            raise DataError(f"entry {number} needs an 'image_id' (a whole number) and a 'caption' (a text)")
        yield Prediction(picture, writable(row["caption"]))


def _jsonl(text: str) -> Iterator[Prediction]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = _parsed(line, f"line {number} is not JSON")
        if isinstance(row, dict) and row.get("error") and row.get("caption") is None:
            continue
        if not isinstance(row, dict) or not isinstance(row.get("path"), str) or not isinstance(row.get("caption"), str):
            raise DataError(f"line {number} needs a 'path' and a 'caption' (texts)")
        yield Prediction(row["path"], writable(row["caption"]), _words(row.get("words")))


def _words(words: Any) -> tuple[tuple[str, float], ...]:
    """The words with probabilities that `captioner caption --format jsonl` writes; none where they are not so."""
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


def _parsed(text: str, complaint: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{complaint} ({error})") from error


def match(predictions: Iterable[Prediction], names: Iterable[str], ids: Mapping[str, int] | None = None) -> Matched:
    """Find the picture of each prediction among the names that have references.

    A path fits a name when one is the end of the other ("photos/a/1.jpg" and "a/1.jpg"); a COCO number fits the name
    that has this number in `ids`, or in the name itself where there are none.
    Raises DataError for a path that fits several names, DataError for names without numbers.
    """
    names = list(names)
    by_path: dict[str, list[str]] = {}  # every end of every name
    for name in names:
        for end in _ends(name):
            by_path.setdefault(end, []).append(name)
    by_number: dict[int, str] | None = None
    found: dict[str, Prediction] = {}
    repeated: dict[str, None] = {}
    unknown: list[str] = []
    for prediction in predictions:
        if isinstance(prediction.picture, int):
            if by_number is None:
                by_number = _numbers(names, ids)
            name_or_none = by_number.get(prediction.picture)
        else:
            name_or_none = _name_of(prediction.picture, names_by_end=by_path)
        if name_or_none is None:
            unknown.append(str(prediction.picture))
        elif found.setdefault(name_or_none, prediction) is not prediction:
            repeated[name_or_none] = None
    return Matched(found, list(repeated), unknown)


def _ends(path: str) -> list[str]:
    """The path and its ends, the longest first: "a/b/1.jpg", "b/1.jpg", "1.jpg"."""
    parts = PurePath(path).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _name_of(path: str, names_by_end: Mapping[str, list[str]]) -> str | None:
    ends = _ends(path)
    for end in ends:
        candidates = names_by_end.get(end, [])
        # A shorter end of the path must be a whole name: "x/1.jpg" is not "y/1.jpg".
        fitting = [name for name in candidates if name == end] or (candidates if end == ends[0] else [])
        if len(fitting) > 1:
            raise DataError(f"{path} may be {' or '.join(fitting[:3])}: write the path as the captions file has it")
        if fitting:
            return fitting[0]
    return None


def _numbers(names: Iterable[str], ids: Mapping[str, int] | None) -> dict[int, str]:
    numbers: dict[int, str] = {}
    problem: DataError | None = None
    for name in names:
        try:
            number = image_id(name, ids)
        except DataError as error:
            if ids is None:
                raise
            problem = error  # a list of the evaluated pictures alone will do
            continue
        if numbers.setdefault(number, name) != name:
            raise DataError(
                f"{numbers[number]} and {name} have the same COCO number, {number}: give --coco-images FILE"
            )
    if problem and not numbers:
        raise problem
    return numbers
