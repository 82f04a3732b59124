"""Replacing files as a whole, reading JSON with care, and digests."""

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

_TEMPORARY = ".captioner-"  # the first letters of the names of temporary files


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that takes the place of `path` when the block ends without an error.

    Readers see either the old content or the new one, even when the process is killed or the disk is full. Links and
    permissions stay as they are. What is not a regular file, such as /dev/stdout, is written to directly. Text is
    UTF-8 with "\\n" line ends on every system.
    Raises OSError, which names `path`, also when `path` is write-protected.
    """
    # File names need not be valid text. They are written as they were read.
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n", "errors": "surrogateescape"}
    if path.exists() and not path.is_file():
        with path.open(mode, **text) as file:  # type: ignore[call-overload]  # the mode is not a literal
            yield file
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name does not contain that of `path`, which may already have the greatest length. It is random, so that nobody
    # can put a link in its place.
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open(mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]  # the mode is not a literal
            if path.exists():
                if not os.access(path, os.W_OK):  # renaming does not check that
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):  # None where writing failed
            error.filename = str(path)  # people do not know the name of the temporary file
        raise
    finally:
        with suppress(OSError):  # where nothing can be written, there is also nothing to delete
            temporary.unlink()


def remove_temporaries(folder: Path) -> None:
    """Delete the temporary files of processes that were killed. No other process may be writing into the folder."""
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
