"""The journal of a captioning run: whole lines of JSON beside the output, from which every format is rendered.

The first line says how the captions are made; then one line a picture, in the order in which they were finished. A
run that was killed leaves whole lines and at most one torn one, which the next run drops.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from captioner.errors import OutputError
from captioner.inference.results import Row


class Journal:
    """Rows by picture path, on disk; in memory only where each path's row begins.

    Open it with `settings`, plain data that fixes what the captions will be. With `resume`, a journal of the same
    settings is gone on with. Raises OutputError when there is one and `resume` is off, or its settings differ.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], resume: bool) -> None:
        self.path = path
        self._offsets: dict[str, int] = {}
        self._captioned: set[str] = set()
        if path.exists() and not resume:
            raise OutputError(
                f"{path}: an interrupted run left its journal: add --resume to go on with it, or delete it"
            )
        if path.exists() and path.stat().st_size:
            self._read(settings)
        self._file = path.open("ab", buffering=0)  # what cannot be written must not be tried again at the end
        if self._file.tell() == 0:
            self._write([dict(settings)])

    def _read(self, settings: Mapping[str, Any]) -> None:
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn by a kill
                try:
                    row = json.loads(line)
                    if end == 0:
                        self._compare(row, settings)
                    else:
                        _check(row)
                        self._note(row, end)
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    raise OutputError(f"{self.path}: not a journal of captioner: delete it to start again") from error
                end += len(line)
        os.truncate(self.path, end)

    def _compare(self, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        for name in theirs.keys() | ours.keys():
            if theirs.get(name) != ours.get(name):
                raise OutputError(
                    f"{self.path}: the interrupted run had {name} {theirs.get(name)!r}, not {ours.get(name)!r}: "
                    "resume with the same settings, or delete the journal to start again"
                )

    def _note(self, row: Row, offset: int) -> None:
        self._offsets[row["path"]] = offset
        if "error" not in row:
            self._captioned.add(row["path"])

    def captioned(self, path: str) -> bool:
        """Whether a picture has its caption; one that failed has not, and is tried again."""
        return path in self._captioned

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows; when this returns they survive a kill of the process and of the machine."""
        rows = list(rows)
        start = self._file.tell()
        for row, length in zip(rows, self._write(rows), strict=True):
            self._note(row, start)
            start += length

    def _write(self, rows: list[Row]) -> list[int]:
        lines = [json.dumps(row).encode() + b"\n" for row in rows]
        rest = memoryview(b"".join(lines))
        try:
            while rest:  # unbuffered, part of it may be written without an error
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:  # a full disk: it names no file
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        return [len(line) for line in lines]

    def rows(self, paths: Iterable[str]) -> Iterator[Row]:
        """The rows of captioned pictures among `paths`, in that order, read from disk one by one."""
        with self.path.open("rb") as file:
            for path in paths:
                if path in self._captioned:
                    file.seek(self._offsets[path])
                    yield json.loads(file.readline())

    def close(self, remove: bool = False) -> None:
        """Close the file; `remove` it when nothing is left to do."""
        self._file.close()
        if remove:
            self.path.unlink()


def _check(row: Row) -> None:
    """Raise an error for a row that formats could not render: the file may have been changed by others."""
    right = isinstance(row["path"], str)
    if "error" not in row:
        for caption in (row, *row.get("alternatives", ())):
            caption["caption"].encode()
            right &= isinstance(caption["logprob"], float) and caption["logprob"] <= 0.0
            right &= isinstance(caption["words"], list) and "end_probability" in caption
    if not right:
        raise ValueError("not what writers.row_of makes")
