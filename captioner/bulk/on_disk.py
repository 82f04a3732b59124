"""A dict that lies on disk, for what may be said of each of a million pictures."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any
from weakref import finalize

from captioner.errors import OutputError
from captioner.inference.parallel import in_batches

_TOGETHER = 50  # items that are set by one statement; every SQLite takes 499


class OnDisk(Mapping[str, Any]):
    """Texts in the order in which they came first, each with a number, a text or None.

    They lie in a temporary file, which goes with the process, and little of it is in memory. A few never reach the
    disk. Threads may share it. While it is gone through, values may change, but nothing may be added. Raises
    OutputError when the folder for temporary files is full.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        finalize(self, self._database.close)
        self._do("PRAGMA journal_mode = OFF")
        self._do("PRAGMA cache_size = -500")  # in KiB; paths come folder by folder, so a few pages are asked for
        self._do("CREATE TABLE items (key BLOB NOT NULL UNIQUE, value)")
        self._do("BEGIN")  # and no end: nothing is to be kept

    def __getitem__(self, key: str) -> Any:
        if (found := self._do("SELECT value FROM items WHERE key = ?", key).fetchone()) is None:
            raise KeyError(key)
        return _whole(found[0])

    def __contains__(self, key: object) -> bool:
        return self._do("SELECT 1 FROM items WHERE key = ?", str(key)).fetchone() is not None

    def __iter__(self) -> Iterator[str]:
        yield from self._column("key FROM items")

    def __len__(self) -> int:
        return int(self._do("SELECT count(*) FROM items").fetchone()[0])

    def put(self, items: Iterable[tuple[str, Any]]) -> None:
        """Set many values, several times faster than one by one. A value stays where None should take its place."""
        rest = "ON CONFLICT (key) DO UPDATE SET value = coalesce(excluded.value, value)"
        for some in in_batches(items, _TOGETHER):
            places = ", ".join(["(?, ?)"] * len(some))
            self._do(f"INSERT INTO items VALUES {places} {rest}", *chain.from_iterable(some))

    def fill(self, items: Iterable[tuple[str, Any]]) -> None:
        """Like `put`, but for texts that are there: others do not come in."""
        last = self._do("SELECT coalesce(max(rowid), 0) FROM items").fetchone()[0]
        self.put(items)
        self._do("DELETE FROM items WHERE rowid > ?", last)

    def remove(self, keys: Iterable[str]) -> None:
        """Drop those of the texts that are there, also while the others are gone through."""
        for some in in_batches(keys, _TOGETHER):
            self._do(f"DELETE FROM items WHERE key IN ({', '.join('?' * len(some))})", *some)

    def in_order(self) -> Iterator[Any]:
        """The values in the order of the texts, without looking for each."""
        return self._column("value FROM items")

    def unset(self) -> Iterator[str]:
        """The texts without a value."""
        return self._column("key FROM items WHERE value IS NULL")

    def _column(self, of: str) -> Iterator[Any]:
        return (_whole(each) for (each,) in self._do(f"SELECT {of} ORDER BY rowid"))

    def _do(self, query: str, *values: Any) -> sqlite3.Cursor:
        # File names need not be valid text.
        given = [each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each for each in values]
        try:
            return self._database.execute(query, given)
        except sqlite3.OperationalError as error:
            if not any(reason in str(error) for reason in ("full", "unable to open", "disk I/O")):
                raise
            remedy = "make room, or set TMPDIR (on Windows TEMP) to another folder"
            raise OutputError(f"the folder for temporary files cannot be used ({error}): {remedy}") from error


def distinct(texts: Iterable[str]) -> OnDisk:
    """The texts, each once."""
    found = OnDisk()
    found.put((text, None) for text in texts)
    return found


def _whole(value: Any) -> Any:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value
