"""Captions a line each: NAME.jpg#0<TAB>caption and the like (Flickr8k, Flickr30k, Flickr8k-CN, Kaggle)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from captioner.data.readers.base import Entry
from captioner.errors import DataError
from captioner.pictures.load import NAMES

_PICTURE = rf"\S.*?(?:{'|'.join(map(re.escape, sorted(NAMES)))})"
FORMS = {
    # 1000268201_693b08cb0e.jpg#0<TAB>A child in a pink dress .
    "NAME.jpg#0<TAB>caption lines": re.compile(r"([^\t]+)#\d+\t(.*)"),
    # 667626_18933d713e.jpg#zhc#0 一个穿着泳装的女人躺在海水里。
    "NAME.jpg#zhc#0 caption lines": re.compile(r"(.+?)#[a-z]+#\d+[ \t](.*)"),
    # 1000092795.jpg| 0| Two young guys ... In one line of Kaggle's file the second bar is missing.
    "NAME.jpg| 0| caption lines": re.compile(r"([^|]+)\| *\d+(?:\||(?= ))(.*)"),
    # 1000092795.jpg Two young guys ...
    "NAME.jpg caption lines": re.compile(rf"({_PICTURE})(?:#\d+)?(?: *: | +)(.*)", re.IGNORECASE),
}
_HEADER = re.compile(r"image_name\| *comment_number\| *comment", re.IGNORECASE)


def form_of(first: str) -> str | None:
    """The one of FORMS that fits the first line of a file, or None."""
    if _HEADER.fullmatch(first.strip()):
        return "NAME.jpg| 0| caption lines"
    return next((form for form, line in FORMS.items() if line.fullmatch(first)), None)


def read_lines(lines: Iterable[str], form: str) -> Iterator[Entry]:
    """Read lines in one of FORMS. Raises DataError for a line in another form."""
    pattern = FORMS[form]
    for number, line in enumerate(lines, start=1):
        match = pattern.fullmatch(line)
        if match is not None:
            yield Entry(match[1], [match[2]])
        elif line.strip() and not _HEADER.fullmatch(line.strip()):
            raise DataError(f"line {number} is not in the form {form.removesuffix(' lines')!r}: {line[:80]!r}")
