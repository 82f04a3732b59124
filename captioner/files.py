"""Files: replaced whole or not at all, and known by their content."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_numbers = itertools.count()  # so that threads do not share a temporary file


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that takes its place when the block ends without an error.

    A reader sees the old content or the new one, never half of it, also when the process is killed or the disk
    is full. A link stays a link, and what is no regular file, such as /dev/stdout, is written to as it is.
    Text is UTF-8 with "\\n" line ends on every system.
    """
    # File names need not be valid text; they come out as they went in.
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n", "errors": "surrogateescape"}
    if path.exists() and not path.is_file():
        with path.open(mode, **text) as file:  # type: ignore[call-overload]  # the mode is not a literal
            yield file
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not made from the name of `path`, which may be as long as a name can be.
    temporary = path.with_name(f".captioner-{os.getpid()}-{next(_numbers)}.tmp")
    try:
        with temporary.open(mode, **text) as file:  # type: ignore[call-overload]  # the mode is not a literal
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)  # people know this name, not the other
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
