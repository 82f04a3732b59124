"""Captions in numbered lines: those of Flickr8k, Flickr30k and Flickr8k-CN, and Kaggle's results.csv."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from captioner.data.readers.base import Row
from captioner.errors import DataError

FORMS = {
    # 1000268201_693b08cb0e.jpg#0<TAB>A child in a pink dress .
    "NAME.jpg#0<TAB>caption lines": re.compile(r"([^\t]+)#\d+\t(.*)"),
    # 667626_18933d713e.jpg#zhc#0 一个穿着泳装的女人躺在海水里。
    "NAME.jpg#zhc#0 caption lines": re.compile(r"(.+?)#[a-z]+#\d+[ \t](.*)"),
    # 1000092795.jpg| 0| Two young guys ... One line of the file that Kaggle gives out lacks the second bar.
    "NAME.jpg| 0| caption lines": re.compile(r"([^|]+)\| *\d+(?:\||(?= ))(.*)"),
}
HEADER = re.compile(r"image_name\| *comment_number\| *comment", re.IGNORECASE)


def form_of(first: str) -> str | None:
    """Which of FORMS a first line is in, if any."""
    if HEADER.fullmatch(first.strip()):
        return "NAME.jpg| 0| caption lines"
    return next((form for form, line in FORMS.items() if line.fullmatch(first)), None)


def read(rows: Iterable[str], form: str) -> Iterator[Row]:
    """The rows of lines in one of FORMS. Raises DataError for a line that is not."""
    pattern = FORMS[form]
    for number, line in enumerate(rows, start=1):
        match = pattern.fullmatch(line)
        if match is not None:
            yield match[1], match[2], ""
        elif line.strip() and not HEADER.fullmatch(line.strip()):
            raise DataError(f"line {number} is not in the form {form.removesuffix(' lines')!r}: {line[:80]!r}")
