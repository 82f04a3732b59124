"""Captions a line each: numbered lines (Flickr8k, Flickr30k, Flickr8k-CN, Kaggle), and .txt files beside pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from captioner.data.readers.base import Entry, text_lines
from captioner.errors import DataError
from captioner.pictures.find import find_pictures

FOLDER_FORM = "folder with a .txt beside each picture"
NUMBERED_FORMS = {
    # 1000268201_693b08cb0e.jpg#0<TAB>A child in a pink dress .
    "NAME.jpg#0<TAB>caption lines": re.compile(r"([^\t]+)#\d+\t(.*)"),
    # 667626_18933d713e.jpg#zhc#0 一个穿着泳装的女人躺在海水里。
    "NAME.jpg#zhc#0 caption lines": re.compile(r"(.+?)#[a-z]+#\d+[ \t](.*)"),
    # 1000092795.jpg| 0| Two young guys ... In one line of Kaggle's file the second bar is missing.
    "NAME.jpg| 0| caption lines": re.compile(r"([^|]+)\| *\d+(?:\||(?= ))(.*)"),
}
_HEADER = re.compile(r"image_name\| *comment_number\| *comment", re.IGNORECASE)


def numbered_form(first: str) -> str | None:
    """The one of NUMBERED_FORMS that fits the first line of a file, or None."""
    if _HEADER.fullmatch(first.strip()):
        return "NAME.jpg| 0| caption lines"
    return next((form for form, line in NUMBERED_FORMS.items() if line.fullmatch(first)), None)


def read_numbered(lines: Iterable[str], form: str) -> Iterator[Entry]:
    """Read lines in one of NUMBERED_FORMS. Raises DataError for a line in another form."""
    pattern = NUMBERED_FORMS[form]
    for number, line in enumerate(lines, start=1):
        match = pattern.fullmatch(line)
        if match is not None:
            yield match[1], match[2], ""
        elif line.strip() and not _HEADER.fullmatch(line.strip()):
            raise DataError(f"line {number} is not in the form {form.removesuffix(' lines')!r}: {line[:80]!r}")


def read_folder(folder: Path) -> Iterator[Entry]:
    """Read the .txt file beside each picture in the folder and its subfolders. Raises DataError if there is none."""
    pictures = map(Path, find_pictures([str(folder)], recursive=True))
    described = [picture for picture in pictures if picture.with_suffix(".txt").is_file()]
    if not described:
        raise DataError("none of the pictures in this folder has its captions in a .txt beside it")
    for picture in described:
        for caption in filter(str.strip, text_lines(picture.with_suffix(".txt"))):  # without the empty last line
            yield picture.relative_to(folder).as_posix(), caption, ""
