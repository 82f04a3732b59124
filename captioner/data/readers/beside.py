"""Captions in text files beside the pictures: photo.txt for photo.jpg, a caption a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from captioner.data.readers.base import Row, lines
from captioner.errors import DataError

FORM = "folder with a .txt beside each picture"


def read(folder: Path) -> Iterator[Row]:
    """The rows of the pictures in the folder and below it that have a text. Raises DataError when none has."""
    from captioner.pictures.find import find_pictures  # which imports torch, that no other form needs

    found = False
    for picture in map(Path, find_pictures([str(folder)], recursive=True)):
        text = picture.with_suffix(".txt")
        if text.is_file():
            found = True
            for caption in lines(text):
                if caption.strip():  # that a text ends with an empty line says nothing
                    yield picture.relative_to(folder).as_posix(), caption, ""
    if not found:
        raise DataError("none of the pictures in this folder has its captions in a .txt beside it")
