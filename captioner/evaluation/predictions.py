"""Captions that any captioner wrote, read from a file and matched with the pictures that have references."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.data.captions import read_entries
from captioner.data.names import KnownPictures
from captioner.data.readers.base import writable
from captioner.errors import DataError


@dataclass(frozen=True)
class Prediction:
    """The caption of a picture, which is identified by a path or by an id such as COCO's numbers."""

    picture: str | int
    caption: str
    words: tuple[tuple[str, float], ...] = ()  # with probabilities, if the captioner gives them


def read_predictions(file: Path, notes: list[str] | None = None) -> list[Prediction]:
    """Read predictions from COCO results JSON, or in any layout that captions may have: see `data.captions`.

    A row that has an `error` and no caption is a picture that could not be captioned; it is passed over. What was
    read otherwise than it stands there is added to `notes`. Raises DataError.
    """
    found = []
    for entry in read_entries(file, [] if notes is None else notes, "file")[1]:
        picture: str | int | None = entry.name or entry.number
        # An image_id may be written as text ("42").
        if entry.name in (None, entry.number) and isinstance(picture, str) and picture.isascii() and picture.isdigit():
            picture = int(picture)
        if picture is None:
            raise DataError(f"{file}: a caption has no picture: {entry.texts[0][:80]!r}")
        words = _words_with_probabilities(entry.words)
        found += [Prediction(picture, writable(text), words) for text in entry.texts]
    if not found:
        raise DataError(f"{file}: holds no captions")
    return found


def _words_with_probabilities(words: Any) -> tuple[tuple[str, float], ...]:
    """The words and probabilities that `captioner caption --format jsonl` writes; empty if they are something else."""
    try:
        found = tuple((writable(str(item["word"])), float(item["probability"])) for item in words)
    except (TypeError, KeyError, ValueError, OverflowError):
        return ()
    return found if all(0.0 <= probability <= 1.0 for _, probability in found) else ()


def match(
    predictions: Iterable[Prediction], names: Iterable[str], ids: Mapping[str, int | str] | None = None
) -> tuple[dict[str, Prediction], list[str], list[str]]:
    """Find the picture of each prediction among the `names` that have references.

    Returns the predictions by the names of their pictures, of several the first; the names of pictures that have
    several; and the pictures without references, as the predictions name them.
    A path fits a name if one is an end of the other ("photos/a/1.jpg" and "a/1.jpg"). An id fits the name with this
    id in `ids`, or without `ids` a number fits the name that contains it.
    Raises DataError for a path that fits several names, and for names without numbers.
    """
    pictures = KnownPictures(names, ids)
    found: dict[str, Prediction] = {}
    repeated: dict[str, None] = {}
    unknown: list[str] = []
    for prediction in predictions:
        picture = prediction.picture
        name = pictures.named(picture) if isinstance(picture, str) else None
        if name is None and (ids or isinstance(picture, int)):
            name = pictures.numbered(picture)
        if name is None:
            unknown.append(str(picture))
        elif found.setdefault(name, prediction) is not prediction:
            repeated[name] = None
    return found, list(repeated), unknown
