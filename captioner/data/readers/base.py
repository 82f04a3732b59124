"""What all readers share: the entries that they yield, and how text files are read."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from captioner.errors import DataError
from captioner.files import decoded
from captioner.pictures.load import NAMES


class Entry(NamedTuple):
    """What one place in a captions file says of a picture."""

    name: str | None  # None if only an id says which picture is meant
    texts: list[str]
    split: str = ""  # "" for none
    number: int | str | None = None  # the id that COCO's results call image_id
    words: Any = None  # of a caption, with probabilities, as a captioner may give them
    unsure: str | None = None  # what our captioner said against the caption; None if the file does not tell


def read_text(file: Path, what: str = "captions file", notes: list[str] | None = None) -> str:
    """The content of a text file. A guessed encoding is noted. Raises DataError.

    `what` says in errors what the file should be.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such {what}")
    try:
        text, encoding = decoded(file.read_bytes())
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    if notes is not None and not encoding.startswith("utf"):
        notes.append(f"{file}: not UTF-8, read as {encoding}")
    return text


def text_lines(file: Path, what: str) -> Iterator[str]:
    """Yield the lines of a text file without their line ends, as `read_text` reads it. Raises DataError."""
    return map(bare, io.StringIO(read_text(file, what), newline=None))


def bare(line: str) -> str:
    """A line without its end. Files that were concatenated have byte-order marks in the middle, too."""
    return line.strip("\r\n\ufeff")


def names_picture(text: str) -> bool:
    """Whether a text is the file name of a picture, or an address."""
    suffix = text.strip().rpartition(".")[2].lower()  # a path of pathlib takes long to make
    return f".{suffix}" in NAMES or bool(re.match(r"\s*https?://\S+\s*$", text))


def writable(text: str) -> str:
    """Replace lone surrogates in the text. JSON can contain them, but they cannot be written to a file."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
