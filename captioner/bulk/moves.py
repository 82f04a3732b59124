"""Pictures that were moved or renamed. Their content tells which they are, and their captions go with them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from captioner.errors import OutputError
from captioner.files import sha256_of

if TYPE_CHECKING:  # they import torch, or this module
    from captioner.bulk.outputs import Output
    from captioner.bulk.progress import Progress
    from captioner.inference.results import Row


Stamp: TypeAlias = "tuple[int, int]"  # of a file: its size in bytes, and the time of its last change in nanoseconds


class File(NamedTuple):
    """A picture as it was when its content was read. One without a stamp is not in a file."""

    path: str
    stamp: Stamp | None
    digest: bytes  # SHA-256; empty if it could not be read


class Digests:
    """The SHA-256 of the content of pictures, each read once."""

    def __init__(self, inline: Mapping[str, bytes] | None = None) -> None:
        found = {path: hashlib.sha256(data).digest() for path, data in (inline or {}).items()}
        self._known = {path: File(path, None, digest) for path, digest in found.items()}

    def of(self, path: str) -> str:
        """The digest of a picture in hexadecimal; empty if it cannot be read."""
        return self.file(path).digest.hex()

    def file(self, path: str) -> File:
        """A picture's path, stamp and digest."""
        if path not in self._known:
            stamp, digest = stamp_of(path), ""
            with suppress(OSError, ValueError):
                digest = sha256_of(Path(path))
            self._known[path] = File(path, stamp, bytes.fromhex(digest))
        return self._known[path]

    def know(self, files: Iterable[File]) -> None:
        """Take what is known of files, which then need not be read."""
        self._known.update((file.path, file) for file in files)

    def added_to(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows with the digest of their picture, which was read just before and is still in the system's memory."""
        for row in rows:
            yield row if "error" in row else {**row, "digest": self.of(row["path"])}
            self._known.pop(row["path"], None)  # which is not asked for again


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a file; None for a missing one."""
    try:
        status = os.stat(path)  # noqa: PTH116  # a Path for each of very many files takes long
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def follow(
    target: Output,
    waiting: Collection[str],
    digests: Digests,
    folders: Iterable[tuple[str, list[str]]],
    dry_run: bool,
    progress: Progress,
) -> Collection[str]:
    """Give those of the waiting pictures that were moved the captions that they had. Returns these pictures.

    Pictures are read only if the output has captions of some that are gone. Raises OutputError and OSError.
    """
    if not (lost := target.lost(folders)):
        return ()
    free = filter(partial(_is_free, target), waiting)
    there = ((path, [name for name in target.files(path) if digests.of(name) in lost]) for path in free)
    files = {path: names for path, names in there if names}
    if not dry_run and files:
        target.follow({name: lost[digests.of(name)] for names in files.values() for name in names})
    moved = {path for path in files if dry_run or target.holds(path)}
    progress.move(len(moved), dry_run)
    return moved


def _is_free(target: Output, path: str) -> bool:
    """Whether a picture has no caption that stays. A problem is reported when a caption is written for it."""
    try:
        return not target.holds(path)
    except OutputError:
        return False
