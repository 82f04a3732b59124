"""Uploaded files, some of them zips, to pictures: nothing is unpacked to disk, everything is bounded."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from captioner.errors import InputError
from captioner.pictures.load import SUFFIXES

MAX_FILES = 500
MAX_ENTRIES = 5000  # of a zip, with what is no picture
MAX_MEMBER = 50_000_000  # bytes of one unpacked picture
MAX_TOTAL = 500_000_000  # bytes of all unpacked pictures
_ENTRY = b"PK\x01\x02"  # begins each entry of a zip's table of contents


@dataclass(frozen=True)
class Member:
    """A file that a visitor gave: its bytes, or why they cannot be had."""

    name: str
    data: bytes | None
    error: str | None = None


def members(files: Sequence[IO[bytes]]) -> Iterator[Member]:
    """The pictures among files and inside zips, one at a time, MAX_FILES at most; what is no picture by its name is
    left out. Names are made different from each other, and harmless as paths.
    """
    names: set[str] = set()
    for count, member in enumerate(_all(files)):
        if count == MAX_FILES:
            return
        yield Member(_unlike(_harmless(member.name), names), member.data, member.error)


def count(files: Sequence[IO[bytes]]) -> int:
    """How many `members` there would be without a limit, as far as tables of contents tell."""
    total = 0
    for file in files:
        try:
            total += len(_pictures(_open(file))) if _is_zip(file) else 1
        except InputError:
            total += 1
    return total


def _all(files: Sequence[IO[bytes]]) -> Iterator[Member]:
    left = MAX_TOTAL
    for file in files:
        if not _is_zip(file):
            file.seek(0)
            yield Member(file.name, file.read())
            continue
        try:
            archive = _open(file)
        except InputError as error:
            yield Member(file.name, None, str(error))
            continue
        for info in _pictures(archive):
            try:
                data = _read(archive, info, left)
            except InputError as error:
                yield Member(info.filename, None, str(error))
            else:
                left -= len(data)
                yield Member(info.filename, data)


def _is_zip(file: IO[bytes]) -> bool:
    return file.name.lower().endswith(".zip")


def _open(file: IO[bytes]) -> zipfile.ZipFile:
    file.seek(0)
    # Counted before the table of contents is read, which takes memory for each entry whatever it holds.
    if file.read().count(_ENTRY) > MAX_ENTRIES:
        raise InputError(f"the zip has more than {MAX_ENTRIES} entries")
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as error:
        raise InputError("not a zip, or a damaged one") from error


def _pictures(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Entries that are pictures by their names; not what macOS and others add to zips."""
    return [info for info in archive.infolist() if not info.is_dir() and _is_picture(PurePosixPath(info.filename))]


def _is_picture(path: PurePosixPath) -> bool:
    hidden = any(part == "__MACOSX" or re.match(r"\.[^./\\]", part) for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES | {".zip"}


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, left: int) -> bytes:
    """The bytes of one entry. What it declares is not believed: reading stops at the limit."""
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
    # What damaged zips raise, unknown methods of compression among it.
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError("damaged in the zip") from error
    if len(data) > limit:
        which = f"{MAX_MEMBER / 1e6:.0f} MB" if limit == MAX_MEMBER else f"the {MAX_TOTAL / 1e6:.0f} MB for all"
        raise InputError(f"unpacked it is more than {which}")
    return data


def _harmless(name: str) -> str:
    """A relative path that leads nowhere but down, whatever system made the name."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(part.replace(":", "_") for part in parts) or "picture"


def _unlike(name: str, names: set[str]) -> str:
    """A name that is not among `names` yet, and now is."""
    path, number, new = PurePosixPath(name), 1, name
    while new in names:
        number += 1
        new = str(path.with_name(f"{path.stem} ({number}){path.suffix}"))
    names.add(new)
    return new
