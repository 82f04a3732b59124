"""Captions files in every common layout, which is recognised from the content: `read_captions`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from captioner.data.readers import columns, documents, lines
from captioner.data.readers.base import Entry, text_lines, writable
from captioner.errors import DataError

_KNOWN = (
    "lines 'NAME.jpg#0<TAB>caption' (Flickr8k, Flickr30k), 'NAME.jpg#zhc#0 caption' (Flickr8k-CN) or "
    "'NAME.jpg| 0| caption'; a table whose first line names the columns, such as 'image,caption' (comma, tab, bar or "
    "semicolon); JSON lines or a JSON list with such names; COCO's captions JSON; Karpathy's split JSON; a folder "
    "with a .txt beside each picture"
)
# Names that other people use for "train" and "val".
_SPLITS = {"restval": "train", "training": "train", "validation": "val", "valid": "val", "dev": "val"}


@dataclass(frozen=True)
class CaptionSet:
    """The content of a captions file."""

    path: Path
    form: str  # the layout, in words
    captions: dict[str, list[str]]  # by the name of the picture, in the order of the file
    splits: dict[str, str]  # "train", "val", "test", ... by name, where the file says so
    empty: int = 0  # captions without a character; they are left out


def read_captions(path: Path) -> CaptionSet:
    """Read a captions file, or a folder with a .txt beside each picture.

    Raises DataError, which lists the known layouts if the file has none of them.
    """
    try:
        form, entries = _open(path)
        return _collect(path, form, entries)
    except DataError as error:
        message = str(error)
        named = message.startswith((f"{path}: ", f"{path}{os.sep}"))  # the file itself, or one in the folder
        raise DataError(message if named else f"{path}: {message}") from error


def _open(path: Path) -> tuple[str, Iterator[Entry]]:
    """The layout, and an iterator that reads the entries."""
    if path.is_dir():
        return lines.FOLDER_FORM, lines.read_folder(path)
    source, read = text_lines(path), []
    for first in source:
        read.append(first)
        if first.strip():
            break
    else:
        raise DataError("the captions file is empty")
    text = chain(read, source)
    if first.lstrip()[0] in "{[":
        return _open_json(first, text)
    if form := lines.numbered_form(first):
        return form, lines.read_numbered(text, form)
    if delimiter := columns.delimiter_of(first):
        return f"{columns.DELIMITERS[delimiter]}-separated table", columns.read_table(text, delimiter)
    raise _unknown(first)


def _open_json(first: str, text: Iterator[str]) -> tuple[str, Iterator[Entry]]:
    """A first line that is a JSON object by itself begins JSON lines, unless it is the whole document."""
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
    return DataError(f"captions in no known layout: the first line is {first[:80]!r}; known are {_KNOWN}")


def _collect(path: Path, form: str, entries: Iterator[Entry]) -> CaptionSet:
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    empty = 0
    for number, (name, caption, split) in enumerate(entries, start=1):
        if not name.strip():
            raise DataError(f"caption {number} has no picture name: {caption[:80]!r}")
        if "\n" in name:
            raise DataError(f"caption {number} has a picture name of several lines, {name[:80]!r}")
        name = writable(name)
        if split:
            split = split.strip().lower()
            splits[name] = _SPLITS.get(split, split)
        if "\n" in caption:
            caption = " ".join(caption.split())
        caption = writable(caption).strip()
        if caption:
            captions.setdefault(name, []).append(caption)
        else:
            empty += 1
    if not captions:
        raise DataError("the captions file is empty" if not empty else f"all {empty} captions are empty")
    return CaptionSet(path, form, captions, {name: splits[name] for name in captions if name in splits}, empty)
