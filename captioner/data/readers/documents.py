"""Captions in JSON: COCO's, Karpathy's splits, lists of objects, and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from captioner.data.readers.base import Entry
from captioner.data.readers.columns import entries_of
from captioner.errors import DataError


def read_lines(lines: Iterable[str]) -> Iterator[Entry]:
    """Read JSON lines, one object a line. Raises DataError."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield from entries_of(parsed(line, f"line {number} is not JSON"), f"line {number}")


def parsed(text: str, complaint: str) -> Any:
    """Parse JSON. Raises DataError, which begins with the complaint, if the text is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{complaint} ({error})") from error


def form_of(content: Any) -> str | None:
    """The layout of a JSON document, in words; None if it holds no captions."""
    if isinstance(content, list):
        return "JSON list"
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        return "COCO captions JSON" if isinstance(content.get("annotations"), list) else "Karpathy split JSON"
    return None


def read(content: Any, form: str) -> Iterator[Entry]:
    """Read a JSON document whose layout is `form`. Raises DataError."""
    if form == "COCO captions JSON":
        yield from _coco(content)
    elif form == "Karpathy split JSON":
        yield from _karpathy(content["images"])
    else:
        for number, entry in enumerate(content, start=1):
            yield from entries_of(entry, f"entry {number}")


def _coco(content: dict[str, Any]) -> Iterator[Entry]:
    names: dict[int | str, str] = {}
    for number, image in enumerate(content["images"], start=1):
        key, name = values_of(image, "id", "file_name")
        if not isinstance(key, (int, str)) or not isinstance(name, str):
            raise DataError(f"entry {number} of 'images' needs an 'id' and a 'file_name'")
        if names.setdefault(key, name) != name:
            raise DataError(f"id {key!r} stands for {names[key]!r} and {name!r} in 'images'")
    for number, annotation in enumerate(content["annotations"], start=1):
        key, caption = values_of(annotation, "image_id", "caption")
        if not isinstance(key, (int, str)) or not isinstance(caption, str):
            raise DataError(
                f"entry {number} of 'annotations' needs an 'image_id' and a 'caption' (COCO's captions_*.json has them)"
            )
        if key not in names:
            raise DataError(f"entry {number} of 'annotations' has the image_id {key!r}, which is not in 'images'")
        yield names[key], caption, ""


def _karpathy(images: list[Any]) -> Iterator[Entry]:
    for number, image in enumerate(images, start=1):
        name, sentences, folder, split = values_of(image, "filename", "sentences", "filepath", "split")
        if not isinstance(name, str) or not isinstance(sentences, list):
            raise DataError(f"entry {number} of 'images' needs a 'filename' and 'sentences', or COCO's 'annotations'")
        if isinstance(folder, str) and folder:
            name = f"{folder}/{name}"
        for sentence in sentences:
            raw, tokens = values_of(sentence, "raw", "tokens")
            if raw is None and isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
                raw = " ".join(tokens)
            if not isinstance(raw, str):
                raise DataError(f"a sentence of entry {number} of 'images' has neither 'raw' nor 'tokens'")
            yield name, raw, split if isinstance(split, str) else ""


def values_of(content: Any, *names: str) -> list[Any]:
    """The values of an object in JSON; None for each that it lacks, and for all if the content is no object."""
    return [content.get(name) if isinstance(content, dict) else None for name in names]
