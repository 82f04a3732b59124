"""A dict that lies on disk, for what may be said of each of a million pictures."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any
from weakref import finalize

from captioner.errors import OutputError
from captioner.inference.parallel import in_batches


class OnDisk(MutableMapping[str, Any]):
    """Texts in the order in which they came first, each with a number, a text or None.

    They lie in a temporary file, which goes with the process, and little of it is in memory. A few never reach the
    disk. Threads may share it, but nothing may be added while it is gone through. Raises OutputError when the folder
    for temporary files is full.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        finalize(self, self._database.close)
        self._do("PRAGMA journal_mode = OFF")
        self._do("PRAGMA cache_size = -500")  # in KiB; paths come folder by folder, so a few pages are asked for
        self._do("CREATE TABLE items (key BLOB NOT NULL UNIQUE, value)")
        self._do("BEGIN")  # and no end: nothing is to be kept

    def __getitem__(self, key: str) -> Any:
        if (found := self._do("SELECT value FROM items WHERE key = ?", _bytes(key)).fetchone()) is None:
            raise KeyError(key)
        return _text(found[0]) if isinstance(found[0], bytes) else found[0]

    def __contains__(self, key: object) -> bool:
        return self._do("SELECT 1 FROM items WHERE key = ?", _bytes(str(key))).fetchone() is not None

    def __setitem__(self, key: str, value: Any) -> None:
        self.put([(key, value)])

    def __delitem__(self, key: str) -> None:
        if not self._do("DELETE FROM items WHERE key = ?", _bytes(key)).rowcount:
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        for (key,) in self._do("SELECT key FROM items ORDER BY rowid"):
            yield _text(key)

    def __len__(self) -> int:
        return int(self._do("SELECT count(*) FROM items").fetchone()[0])

    def put(self, items: Iterable[tuple[str, Any]]) -> None:
        """Set many values, several times faster than one by one. A value stays where None should take its place."""
        add = "INSERT INTO items VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = coalesce(excluded.value, value)"
        try:
            self._database.executemany(add, ((_bytes(k), _bytes(v) if isinstance(v, str) else v) for k, v in items))
        except sqlite3.OperationalError as error:
            raise _explained(error) from error

    def has_all(self, keys: Iterable[str]) -> bool:
        """Whether all of these different texts are there."""
        for some in in_batches(map(_bytes, keys), 500):  # as many as every SQLite takes
            places = ", ".join("?" * len(some))
            if self._do(f"SELECT count(*) FROM items WHERE key IN ({places})", *some).fetchone()[0] < len(some):
                return False
        return True

    def _do(self, query: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._database.execute(query, values)
        except sqlite3.OperationalError as error:
            raise _explained(error) from error


def distinct(texts: Iterable[str]) -> OnDisk:
    """The texts, each once."""
    found = OnDisk()
    found.put((text, None) for text in texts)
    return found


def _explained(error: sqlite3.Error) -> Exception:
    if not any(reason in str(error) for reason in ("full", "unable to open", "disk I/O")):
        return error
    remedy = "make room, or set TMPDIR (on Windows TEMP) to another folder"
    return OutputError(f"the folder for temporary files cannot be used ({error}): {remedy}")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")  # file names need not be valid text


def _text(data: bytes) -> str:
    return data.decode(errors="surrogatepass")
