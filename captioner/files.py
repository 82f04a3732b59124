"""Files: replaced whole, JSON read with care, digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from captioner.errors import DataError

_TEMPORARY = ".captioner-"  # how the names of temporary files begin


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that takes its place when the block ends without an error.

    A reader sees the old content or the new one, never half of it, also when the process is killed or the disk
    is full. A link stays a link, permissions stay as they are, and what is no regular file, such as /dev/stdout, is
    written to as it is. Text is UTF-8 with "\\n" line ends on every system.
    Raises OSError, which names `path`, also where that is a file that may not be written.
    """
    # File names need not be valid text; they come out as they went in.
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n", "errors": "surrogateescape"}
    if path.exists() and not path.is_file():
        with path.open(mode, **text) as file:  # type: ignore[call-overload]  # the mode is not a literal
            yield file
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not made from the name of `path`, which may be as long as a name can be; nor one that others can know and put a
    # link in the place of.
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open(mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]  # the mode is not a literal
            if path.exists():
                if not os.access(path, os.W_OK):  # renaming would not ask
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):  # writing gives none
            error.filename = str(path)  # people know this name, not the other
        raise
    finally:
        with suppress(OSError):  # where nothing can be written, nothing can be deleted, nor was there anything
            temporary.unlink()


def remove_temporaries(folder: Path) -> None:
    """Delete what kills left of files that were being written in a folder, into which nobody else may be writing."""
    for file in folder.glob(f"{_TEMPORARY}*.tmp"):
        file.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_json(file: Path, what: str = "a JSON file") -> Any:
    """The content of a JSON file in UTF-8, with or without a byte order mark.

    `what` is what the file should be, for the message: "{file}: not {what} (...)".
    Raises DataError when the file is empty, is not JSON or is nested too deeply; OSError when it cannot be read.
    """
    try:
        if not (text := file.read_bytes().decode("utf-8-sig")).strip():
            raise DataError(f"{file}: the file is empty")
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not {what} ({error})") from error
