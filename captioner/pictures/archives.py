"""Pictures from uploaded files, some of which are zips. Nothing is unpacked to disk, and all sizes are limited."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import IO

from captioner.errors import InputError
from captioner.pictures.load import SUFFIXES

MAX_FILES = 500
MAX_ENTRIES = 5000  # of a zip, other files included
MAX_MEMBER = 50_000_000  # bytes of one unpacked picture
MAX_TOTAL = 500_000_000  # bytes of all unpacked pictures
_ENTRY = b"PK\x01\x02"  # the first bytes of each entry in a zip's table of contents
# What damaged zips and unknown methods of compression raise.
_DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError, ValueError)


@dataclass(frozen=True)
class Member:
    """A file that a visitor uploaded: its bytes, or why they cannot be read."""

    name: str
    data: bytes | None
    error: str | None = None


def members(files: Sequence[IO[bytes]], names: set[str] | None = None) -> Iterator[Member]:
    """The files and the pictures inside zips, one at a time, as long as there are at most MAX_FILES names.

    Entries of a zip whose names are not those of pictures are left out. No two names are the same, and as a path none
    leads out of the current folder. `names` are those of members of earlier uploads; the new ones are added.
    """
    names = set() if names is None else names
    for member in islice(_all(files, _read), max(0, MAX_FILES - len(names))):
        yield Member(_unlike(_harmless(member.name), names), member.data, member.error)


def count(files: Sequence[IO[bytes]]) -> int:
    """The number of `members` without the limit, as the tables of contents tell it."""
    return sum(1 for _ in _all(files, lambda archive, info, left: b""))


def _all(
    files: Sequence[IO[bytes]], read: Callable[[zipfile.ZipFile, zipfile.ZipInfo, int], bytes]
) -> Iterator[Member]:
    left = MAX_TOTAL
    for file in files:
        file.seek(0)
        if not file.name.lower().endswith(".zip"):
            yield Member(file.name, file.read())
            continue
        try:
            archive = _open(file)
        except InputError as error:
            yield Member(file.name, None, str(error))
            continue
        for info in filter(_is_picture, archive.infolist()):
            try:
                data = read(archive, info, left)
            except InputError as error:
                yield Member(info.filename, None, str(error))
            else:
                left -= len(data)
                yield Member(info.filename, data)


def _open(file: IO[bytes]) -> zipfile.ZipFile:
    # Count first: reading the table of contents takes memory for each entry.
    if file.read().count(_ENTRY) > MAX_ENTRIES:
        raise InputError(f"the zip has more than {MAX_ENTRIES} entries")
    try:
        return zipfile.ZipFile(file)
    except _DAMAGED as error:
        raise InputError("not a zip, or a damaged one") from error


def _is_picture(info: zipfile.ZipInfo) -> bool:
    """Whether an entry has the name of a picture, or of a zip, and is neither hidden nor one that macOS adds."""
    path = PurePosixPath(info.filename)
    hidden = any(part == "__MACOSX" or re.match(r"\.[^./\\]", part) for part in path.parts)
    return not (info.is_dir() or hidden) and path.suffix.lower() in SUFFIXES | {".zip"}


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, left: int) -> bytes:
    """The bytes of one entry. Its declared size may be wrong, so reading stops at the limit."""
    if info.filename.lower().endswith(".zip"):
        raise InputError("a zip inside a zip is not opened")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError("a link, not a picture")
    if info.flag_bits & 1:
        raise InputError("protected by a password")
    limit = min(MAX_MEMBER, left)
    try:
        with archive.open(info) as file:
            data = file.read(limit + 1)
    except _DAMAGED as error:
        raise InputError("damaged in the zip") from error
    if len(data) > limit:
        which = f"{MAX_MEMBER / 1e6:.0f} MB" if limit == MAX_MEMBER else f"the {MAX_TOTAL / 1e6:.0f} MB for all"
        raise InputError(f"unpacked it is more than {which}")
    return data


def _harmless(name: str) -> str:
    """A relative path without "..", drives or backslashes, whatever system made the name."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(part.replace(":", "_") for part in parts) or "picture"


def _unlike(name: str, names: set[str]) -> str:
    """Make a name different from all in `names`, and add it to them."""
    path, number = PurePosixPath(name), 1
    while name in names:
        number += 1
        name = str(path.with_name(f"{path.stem} ({number}){path.suffix}"))
    names.add(name)
    return name
