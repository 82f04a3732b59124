"""What earlier runs left in a folder of shards: the pictures that have rows already, so that only others get some."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_TAR = re.compile(r"\.tar(?=/|$)", re.IGNORECASE)


def as_text(name: str) -> str:
    """A name that parquet can hold, even if it is not valid text."""
    return name.encode(errors="backslashreplace").decode()


def key_of(name: str) -> str:
    """What two names have in common that stand for one picture: its address, or its absolute path."""
    path = name if "://" in name else os.path.abspath(name)  # noqa: PTH100  # a Path for each of many takes long
    return as_text(path)


class Earlier:
    """The pictures with rows by their names. The members of those tar files that are given again are kept apart."""

    def __init__(self, tars: Iterable[str] = ()) -> None:
        self.pictures, self.failed = set[str](), set[str]()  # keys
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
            self.pictures.add(key)
            if tar:
                self._members[tar].add(key[len(tar) + 1 :])

    def has(self, name: str) -> bool:
        """Whether a picture has a caption."""
        return key_of(name) in self.pictures

    def members(self, tar: str) -> set[str] | None:
        """The members of a tar file that have captions; None if all have that it holds.

        Rows are written for whole tar files, so that one which has a row was read to its end.
        """
        key = key_of(tar)
        found = self._members.get(key, set())
        return None if found and key not in self._torn else found
