"""Pictures that were moved or renamed. Their content tells which they are, and their captions go with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.files import sha256_of

if TYPE_CHECKING:  # they import torch, or this module
    from captioner.bulk.outputs import Output
    from captioner.bulk.progress import Progress
    from captioner.inference.results import Row


class Digests:
    """The SHA-256 of the content of pictures, each read once."""

    def __init__(self, inline: Mapping[str, bytes] | None = None) -> None:
        self._known = {path: hashlib.sha256(data).hexdigest() for path, data in (inline or {}).items()}

    def of(self, path: str) -> str:
        """The digest of a picture; empty if it cannot be read."""
        if path not in self._known:
            self._known[path] = ""
            with suppress(OSError, ValueError):
                self._known[path] = sha256_of(Path(path))
        return self._known[path]

    def added_to(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows with the digest of their picture, which was read just before and is still in the system's memory."""
        for row in rows:
            yield row if "error" in row else {**row, "digest": self.of(row["path"])}


def follow(
    target: Output,
    waiting: list[str],
    digests: Digests,
    folders: Iterable[tuple[str, list[str]]],
    dry_run: bool,
    progress: Progress,
) -> list[str]:
    """Give those of the waiting pictures that were moved the captions that they had. Returns those that still wait.

    Pictures are read only if the output has captions of some that are gone. Raises OutputError and OSError.
    """
    if not (lost := target.lost(folders)):
        return waiting
    files = {path: [name for name in target.files(path) if digests.of(name) in lost] for path in waiting}
    if not dry_run and any(files.values()):
        target.follow({name: lost[digests.of(name)] for names in files.values() for name in names})
    moved = {path for path in waiting if files[path] and (dry_run or target.holds(path))}
    progress.move(len(moved), dry_run)
    return [path for path in waiting if path not in moved]
