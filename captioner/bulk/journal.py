"""The journal of a captioning run: a file beside the output, from which every format is rendered.

Its first line holds the settings that the captions depend on. Each further line is the row of one picture, in the order
in which they were finished. All lines are JSON. When a run is killed, only its last line can be incomplete, and the
next run drops that line. A check sum at the end of each row tells a resumed run that it need not look at the rest of
it. Rows of earlier versions have none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zlib import crc32

from captioner.bulk.on_disk import OnDisk
from captioner.errors import OutputError
from captioner.inference.parallel import in_batches

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.results import Row

_PATH, _CRC = b'{"path": "', b', "crc": '  # how rows begin, and how they end
_JSON = json.JSONDecoder()


class Journal:
    """The rows of pictures. The value of a captioned picture becomes the place of its row; that of others stays None.

    A new object reads the journal that an interrupted run left, if there is one. `begin` opens it for writing.
    Raises OutputError when there is one but `resume` is off, and when the file is not a journal.
    """

    def __init__(self, path: Path, resume: bool, pictures: OnDisk) -> None:
        self.path, self._pictures = path, pictures
        self._settings: dict[str, Any] | None = None
        self.end = 0  # of the rows that are whole, in bytes
        self._file: IO[bytes] | None = None
        self._resumed = path.exists()
        if self._resumed and not resume:
            ways = "add resume (--resume) to go on with it, or delete it"
            raise OutputError(f"{path}: an interrupted run left its journal: {ways}")
        if self._resumed:
            try:
                self._pictures.fill(self._read())
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise OutputError(f"{path}: not a journal of captioner: delete it to start again") from error

    def _read(self) -> Iterator[tuple[str, int]]:
        """The captioned pictures, and where their rows begin."""
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # cut short by a kill
                if self._settings is None:
                    self._settings = {**json.loads(line)}
                elif (path := _captioned(line)) is not None:
                    yield path, self.end
                self.end += len(line)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Open the file to append rows.

        `settings` are plain data that fix what the captions will be. Raises OutputError when those of the interrupted
        run were different, and leaves the file as it is.
        """
        remedy = "resume with the same settings, or delete the journal to start again"
        theirs = settings if self._settings is None else self._settings
        check_same(theirs, settings, f"{self.path}: the interrupted run", remedy)
        # Unbuffered: a full disk must be reported here, and not once more when the file is closed.
        # "x" fails when another run began after this object looked, and leaves that run's journal alone.
        mode = "ab" if self._resumed else "xb"
        self._file = self.path.open(mode, buffering=0)
        self._file.truncate(self.end)
        if self._settings is None:
            line = json.dumps(dict(settings)).encode() + b"\n"
            self._write([line])
            self.end = len(line)

    def lacking(self, batch_size: int) -> list[int]:
        """For each batch of the pictures, its length if it lacks any caption. A picture that failed is tried again."""
        batches = in_batches(self._pictures.in_order(), batch_size)
        return [len(batch) if None in batch else 0 for batch in batches]

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows. When this returns they are on disk, and survive a kill of the process and of the machine."""
        rows = list(rows)
        lines = list(map(_line, rows))
        self._write(lines)
        *starts, self.end = accumulate(map(len, lines), initial=self.end)
        self._pictures.fill((row["path"], start) for row, start in zip(rows, starts, strict=True) if "error" not in row)

    def rows(self) -> Rows:
        """The rows of the pictures that are captioned, in their order, read from disk one by one."""
        return Rows(self.path, self._pictures)

    def close(self) -> None:
        """Close the file, which stays on disk."""
        if self._file:
            self._file.close()

    def _write(self, lines: list[bytes]) -> None:
        assert self._file
        rest = memoryview(b"".join(lines))
        try:
            while rest:  # an unbuffered write may take a part only
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:  # such as a full disk; the error does not name the file
            raise OSError(error.errno, error.strerror, str(self.path)) from error


@dataclass(frozen=True)
class Rows:
    """Rows of a journal; to count them takes no reading."""

    journal: Path
    pictures: OnDisk

    def __len__(self) -> int:
        return sum(start is not None for start in self.pictures.in_order())

    def __iter__(self) -> Iterator[Row]:
        with self.journal.open("rb") as file:
            for start in self.pictures.in_order():
                if start is not None:
                    file.seek(start)
                    row = json.loads(file.readline())
                    row.pop("crc", None)
                    yield row


def _line(row: Row) -> bytes:
    start = json.dumps(row).encode().removesuffix(b"}")
    return start + _CRC + b"%d}\n" % crc32(start)


def _captioned(line: bytes) -> str | None:
    """The picture of a row, if it is captioned. Raises an error for a row that could not be rendered."""
    start, _, crc = line.rpartition(_CRC)
    if crc == b"%d}\n" % crc32(start) and start.startswith(_PATH):  # the row is as we wrote it
        path, end = _JSON.raw_decode(start.decode(), len(_PATH) - 1)
        return None if start.startswith(b', "error": ', end) else str(path)
    row = json.loads(line)
    _check(row)
    return None if "error" in row else row["path"]


def check_same(theirs: Mapping[str, Any], ours: Mapping[str, Any], run: str, remedy: str) -> None:
    """Raise OutputError for a setting that differs from that of another run."""
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise OutputError(f"{run} had {name} {theirs.get(name)!r}, not {ours.get(name)!r}: {remedy}")


def _check(row: Row) -> None:
    """Raise an error for a row that could not be rendered, such as one that somebody changed."""
    right = isinstance(row["path"], str)
    for caption in () if "error" in row else (row, *row.get("alternatives", ())):
        caption["caption"].encode()
        right &= isinstance(caption["logprob"], float) and caption["logprob"] <= 0.0
        right &= isinstance(caption["words"], list) and "end_probability" in caption
    if not right:
        raise ValueError("not a row as inference.results.row_of makes it")
