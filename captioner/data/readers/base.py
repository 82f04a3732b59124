"""What all readers share: the entries that they yield, and how text files are read."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from captioner.errors import DataError

# The name of a picture, a caption, and the split that the file puts the picture in ("" for none).
Entry: TypeAlias = tuple[str, str, str]


def text_lines(file: Path, what: str = "captions file") -> Iterator[str]:
    """Yield the lines of a text file without their line ends. Raises DataError.

    The file is UTF-8, or UTF-16 with a byte-order mark, as Excel writes it. `what` says in errors what the file
    should be.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such {what}")
    try:
        with file.open("rb") as start:
            marked = start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        # Split at "\n" only: a caption may contain other characters that str.splitlines takes for line ends.
        with file.open(encoding="utf-16" if marked else "utf-8", newline="\n") as stream:
            for line in stream:
                # Files that were concatenated have byte-order marks in the middle, too.
                yield line.strip("\r\n\ufeff")
    except UnicodeError as error:
        encoding = "UTF-16" if marked else f"UTF-8{_first_bad_line(file)}"
        raise DataError(f"{file}: not a text file in {encoding}: save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _first_bad_line(file: Path) -> str:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f" (line {number} has {line[error.start : error.start + 1]!r} at byte {error.start})"
    return ""


def writable(text: str) -> str:
    """Replace lone surrogates in the text. JSON can contain them, but they cannot be written to a file."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
