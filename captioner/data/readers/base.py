"""What all readers of captions share: the rows they give, the set these become, lines of a text file."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from captioner.errors import DataError

Row: TypeAlias = tuple[str, str, str]  # a picture's name, a caption, the split that the file puts it in ("": none)


@dataclass(frozen=True)
class CaptionSet:
    """What a captions file holds."""

    path: Path
    form: str  # the layout, in words
    captions: dict[str, list[str]]  # by the name of the picture, in the order of the file
    splits: dict[str, str]  # "train", "val", "test", ... by name, where the file says so
    empty: int = 0  # captions without a character, which are left out


def lines(file: Path, what: str = "captions file") -> Iterator[str]:
    """The lines of a text file, without their ends, as they are needed. Raises DataError.

    The text is UTF-8, or UTF-16 with a byte-order mark, as Excel writes it. `what` is what the file should be.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such {what}")
    try:
        with file.open("rb") as start:
            marked = start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        # Split at "\n" alone: a caption may hold characters that str.splitlines takes for line ends.
        with file.open(encoding="utf-16" if marked else "utf-8", newline="\n") as stream:
            for line in stream:
                # Byte-order marks stand where files were put together, too.
                yield line.strip("\r\n\ufeff")
    except UnicodeError as error:
        encoding = "UTF-16" if marked else "UTF-8"
        where = "" if marked else _first_bad_line(file)
        raise DataError(f"{file}: not a text file in {encoding}{where}: save it as UTF-8") from error
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
    """The text without halves of characters, which JSON can hold and no file can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
