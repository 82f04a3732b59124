"""What earlier runs left in a folder of shards: the pictures that have rows already, so that only others get some."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable

_TAR = re.compile(r"\.tar(?=/|$)", re.IGNORECASE)


def as_text(name: str) -> str:
    """A name that parquet can hold, even if it is not valid text."""
    return name.encode(errors="backslashreplace").decode()


def key_of(name: str) -> str:
    """What two names have in common that stand for one picture: its address, or its absolute path.

    The member of a tar file stays as it is: the same file may hold "a.jpg" and "./a.jpg".
    """
    end = found.end() if (found := _TAR.search(name)) else len(name)
    path = name[:end]
    path = path if "://" in path else os.path.abspath(path)  # noqa: PTH100  # a Path for each of many takes long
    return as_text(path + name[end:])


class Earlier:
    """The pictures with rows by their names. The members of those tar files that are given again are kept apart.

    `known` pictures that were asked for have captions. Those of `again` were asked for, and failed before.
    """

    def __init__(self, tars: Iterable[str] = ()) -> None:
        self.pictures = Counter[str]()  # rows of each key that nobody took; a key stays when none is left
        self.failed, self.again, self.known = set[str](), set[str](), 0
        self._members: dict[str, set[str]] = {key_of(tar): set() for tar in tars}
        self._torn = set[str]()  # tar files of which something failed

    def add(self, name: str, failed: bool) -> None:
        """Note the row of a picture."""
        key = key_of(name)
        ends = (key[: match.end()] for match in _TAR.finditer(key))
        tar = next(filter(self._members.__contains__, ends), "")
        if failed:
            self.failed.add(key)
            self._torn.add(tar)
        else:
            self.pictures[key] += 1
            if tar:
                self._members[tar].add(key[len(tar) + 1 :])

    def take(self, name: str) -> bool:
        """Whether a picture has a caption. Tables may name one several times: each row is taken for one of them."""
        key = key_of(name)
        if key in self.failed:
            self.again.add(key)
        if not self.pictures.get(key):
            return False
        self.pictures[key] -= 1
        self.known += 1
        return True

    def members(self, tar: str) -> set[str] | None:
        """The members of a tar file that have captions; None if all have that it holds.

        Rows are written for whole tar files, so that one which has a row was read to its end.
        """
        key = key_of(tar)
        found = self._members.get(key, set())
        self.known += len(found)
        if key in self.failed:
            self.again.add(key)
        return None if found and key not in self._torn else found
