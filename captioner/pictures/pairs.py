"""Files that show one picture: a JPEG or HEIC, the raw file beside it, and the film of a Live Photo."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Container, Iterable

from captioner.pictures.raw import RAW

VIDEOS = frozenset({".mov", ".mp4", ".m4v", ".avi", ".mts", ".m2ts", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".3gp"})
LIVE = frozenset({".mov", ".mp4"})
_RANKS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), 0),
    **dict.fromkeys((".heic", ".heif", ".hif"), 1),
    **dict.fromkeys(RAW, 2),
    **dict.fromkeys(LIVE, 3),
}
_SECONDS = RAW | LIVE


def seconds(names: Iterable[str]) -> dict[str, str]:
    """Of files in one folder, those of which another shows the same, each with the name of the other.

    The other has the same name but for the suffix. It is the JPEG, or else the HEIC, or else a raw file.
    """
    found = {}
    for files in by_stem(_with_seconds(list(names)), _RANKS).values():
        rank, first = min((_RANKS[_parts(name)[1]], name) for name in files)
        if rank < _RANKS[".mov"]:
            found.update({name: first for name in files if name != first and _parts(name)[1] in _SECONDS})
    return found


def _with_seconds(paths: Collection[str]) -> list[str]:
    """The paths among which those of `seconds` are, with the others of the same name: few, or none at all."""
    ends = {path[path.rfind(".") :] for path in paths}  # few, while to take very many paths apart takes long
    if _SECONDS.isdisjoint(map(str.lower, ends)):
        return []
    stems = {stem for stem, suffix in map(_parts, paths) if suffix in _SECONDS}
    return [path for path in paths if _parts(path)[0] in stems]


def by_stem(names: Iterable[str], suffixes: Container[str]) -> dict[str, list[str]]:
    """The names that have one of the suffixes, by what is before it. Case does not count."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        stem, suffix = _parts(name)
        if suffix in suffixes:
            found[stem].append(name)
    return found


def one_of_each(paths: Collection[str]) -> Iterable[str]:
    """The paths without those of which another one shows the same; themselves if there are none."""
    folders: dict[str, list[str]] = defaultdict(list)
    for path in _with_seconds(paths):
        folders[os.path.dirname(path)].append(os.path.basename(path))
    second = {os.path.join(folder, name) for folder, names in folders.items() for name in seconds(names)}
    return (path for path in paths if path not in second) if second else paths


def _parts(path: str) -> tuple[str, str]:
    """A path in small letters without its suffix, and the suffix."""
    return os.path.splitext(path.lower())
