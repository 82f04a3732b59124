"""Captions files of every common layout, told by their content: `read_captions`. One module for each kind of layout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from captioner.data.readers import beside, columns, documents, numbered
from captioner.data.readers.base import CaptionSet, Row, lines, writable
from captioner.errors import DataError

__all__ = ["CaptionSet", "DataError", "lines", "read_captions"]

KNOWN = (
    "lines 'NAME.jpg#0<TAB>caption' (Flickr8k, Flickr30k), 'NAME.jpg#zhc#0 caption' (Flickr8k-CN) or "
    "'NAME.jpg| 0| caption'; a table whose first line names the columns, such as 'image,caption' (comma, tab, bar or "
    "semicolon); JSON lines or a JSON list with such names; COCO's captions JSON; Karpathy's split JSON; a folder "
    "with a .txt beside each picture"
)
# Other people's names for the two that we use.
_SPLITS = {"restval": "train", "training": "train", "validation": "val", "valid": "val", "dev": "val"}


def read_captions(path: Path) -> CaptionSet:
    """The captions of a file, or of a folder with a .txt beside each picture.

    Raises DataError, which names the known layouts when it is none of these.
    """
    try:
        form, rows = _open(path)
        return _collect(path, form, rows)
    except DataError as error:
        message = str(error)
        named = message.startswith((f"{path}: ", f"{path}{os.sep}"))  # the file, or one in the folder
        raise DataError(message if named else f"{path}: {message}") from error


def _open(path: Path) -> tuple[str, Iterator[Row]]:
    """The layout and the rows, as they are needed."""
    if path.is_dir():
        return beside.FORM, beside.read(path)
    source = lines(path)
    blank = []
    first = next(source, None)
    while first is not None and not first.strip():
        blank.append(first)
        first = next(source, None)
    if first is None:
        raise DataError("the captions file is empty")
    text = chain(blank, [first], source)
    if first.lstrip()[0] in "{[":
        return _open_json(first, text)
    form = numbered.form_of(first)
    if form:
        return form, numbered.read(text, form)
    delimiter = columns.delimiter_of(first)
    if delimiter:
        return columns.form_of(delimiter), columns.read_table(text, delimiter)
    raise _unknown(first)


def _open_json(first: str, text: Iterator[str]) -> tuple[str, Iterator[Row]]:
    """A line that is an object of its own is the first of JSON lines, unless it is the whole document."""
    try:
        content = documents.parsed(first, "")
    except DataError:
        content = documents.parsed("\n".join(text), "neither JSON nor JSON lines")
    else:
        if isinstance(content, dict) and documents.form_of(content) is None:
            return "JSON lines", documents.read_lines(text)
        if sum(bool(line.strip()) for line in text) > 1:
            raise DataError("there is more after the JSON document in the first line")
    form = documents.form_of(content)
    if form is None:
        raise _unknown(first)
    return form, documents.read(content, form)


def _unknown(first: str) -> DataError:
    return DataError(f"captions in no known layout: the first line is {first[:80]!r}; known are {KNOWN}")


def _collect(path: Path, form: str, rows: Iterator[Row]) -> CaptionSet:
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    empty = 0
    for number, (name, caption, split) in enumerate(rows, start=1):
        if not name.strip():
            raise DataError(f"caption {number} has no picture name: {caption[:80]!r}")
        if "\n" in name:
            raise DataError(f"caption {number} has a picture name of several lines, {name[:80]!r}")
        name = writable(name)
        if split:
            split = split.strip().lower()
            splits[name] = _SPLITS.get(split, split)
        caption = _clean(caption)
        if caption:
            captions.setdefault(name, []).append(caption)
        else:
            empty += 1
    if not captions:
        raise DataError("the captions file is empty" if not empty else f"all {empty} captions are empty")
    return CaptionSet(path, form, captions, {name: splits[name] for name in captions if name in splits}, empty)


def _clean(caption: str) -> str:
    """A caption as one line without space around it."""
    if "\n" in caption:
        caption = " ".join(caption.split())
    return writable(caption).strip()
