"""Which name means which picture? Answered here for every use: by path, by the end of a path, by COCO number."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePath
from typing import TypeVar

from captioner.data.readers.base import names_picture
from captioner.data.readers.documents import values_of
from captioner.errors import DataError
from captioner.files import read_json, without_suffix

Id = TypeVar("Id", bound=int | str)

# COCO_val2014_000000000042.jpg, 000000000042.jpg
_NUMBER = re.compile(r"(?:.*_)?(?P<id>[0-9]+)", re.DOTALL)


def _composed(name: str) -> str:
    """The name in the Unicode form NFC. macOS writes accents as characters of their own, which look the same."""
    return unicodedata.normalize("NFC", name)


def _ends(path: str) -> list[str]:
    """The path and its ends, the longest first: "a/b/1.jpg", "b/1.jpg", "1.jpg". A backslash is a separator, too."""
    parts = [part for part in re.split(r"[/\\]", _composed(path)) if part not in ("", ".")]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def find_files(names: Iterable[str], images: Path) -> dict[str, Path]:
    """Find the files of pictures in a folder. Names whose file is not there are missing in the result.

    A name may begin with folders that do not exist here, such as "val2014/1.jpg" in Karpathy's files. Then the
    longest end of the name that is a file counts, unless another name has the same end. A name without the suffix of
    a picture finds the only picture that is called so. Names in different Unicode forms are the same.
    Raises DataError if there is no such folder.
    """
    if not images.is_dir():
        raise DataError(f"{images}: no such folder of pictures")
    ends = {name: _ends(name) for name in names}
    times = Counter(end for those in ends.values() for end in those)
    folders: dict[Path, dict[str, Path]] = {}
    files = {}
    for name, those in ends.items():
        candidates = [images / end for end in (name, *(end for end in those if times[end] == 1))]
        file = next(filter(Path.is_file, candidates), None)
        for path in () if file else candidates:
            if path.parent not in folders:
                folders[path.parent] = _by_other_names(path.parent)
            file = file or folders[path.parent].get(_composed(path.name))
        if file:
            files[name] = file
    return files


def _by_other_names(folder: Path) -> dict[str, Path]:
    """The files of a folder by their names in NFC, and pictures also by their names without suffix."""
    files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    pictures = [path for path in files if names_picture(path.name)]
    times = Counter(path.stem for path in pictures)
    short = {_composed(path.stem): path for path in pictures if times[path.stem] == 1 and not names_picture(path.stem)}
    return {**short, **{_composed(path.name): path for path in files}}


class KnownPictures:
    """Pictures that have names, found by what others call them.

    `ids` are COCO numbers or other ids by file name (see `read_image_ids`). Without them, the numbers are in the names
    themselves.
    """

    def __init__(self, names: Iterable[str], ids: Mapping[str, int | str] | None = None) -> None:
        self._names = dict.fromkeys(names)
        self._ids = ids
        self._whole: dict[str, list[str]] = {}
        self._by_end: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in self._names:
            ends = _ends(name)
            for end in ends:
                self._by_end.setdefault(end, []).append(name)
            self._whole.setdefault("".join(ends[:1]), []).append(name)
            self._by_stem.setdefault(PurePath("".join(ends[-1:])).stem, []).append(name)

    def named(self, path: str) -> str | None:
        """The name that is an end of the path, or that ends with the path; None if there is none.

        Raises DataError if several names fit.
        """
        if path in self._names:
            return path
        first, *shorter = _ends(path) or [""]
        # A shorter end of the path must be a whole name: "x/1.jpg" is not "y/1.jpg".
        whole = [self._whole.get(end, []) for end in (first, *shorter)]
        # One of the two may lack its suffix.
        stem = first if not names_picture(first) else PurePath(shorter[-1] if shorter else first).stem
        short = [name for name in self._by_stem.get(stem, []) if not (names_picture(first) and names_picture(name))]
        for fitting in (whole[0], self._by_end.get(first, []), *whole[1:], short):
            if len(fitting) > 1:
                raise DataError(f"{path} may be {' or '.join(fitting[:3])}: write the path as the captions file has it")
            if fitting:
                return fitting[0]
        return None

    def numbered(self, number: int | str) -> str | None:
        """The name of the picture with this COCO number or other id; None if there is none.

        Raises DataError if the pictures have no numbers, or two pictures the same number.
        """
        return self._by_number.get(number)

    @cached_property
    def _by_number(self) -> dict[int | str, str]:
        names = list(self._names)
        if self._ids is not None:  # a list of only those pictures that are evaluated is enough
            names = [name for name in names if not self._ids.keys().isdisjoint([name, *_ends(name)])] or names
        numbers: dict[int | str, str] = {}
        for name in names:
            number = image_id(name, self._ids)
            number = int(number) if isinstance(number, str) and number.isascii() and number.isdigit() else number
            if numbers.setdefault(number, name) != name:
                same = f"{numbers[number]} and {name} have the same COCO number, {number}"
                raise DataError(f"{same}: give coco_images (--coco-images FILE)")
        return numbers


def image_id(path: str, ids: Mapping[str, Id] | None) -> Id | int:
    """The COCO number or other id of a picture. Raises DataError if it has none.

    With `ids` (see `read_image_ids`), the number is that of the path, or of the longest end of the path that is
    listed ("val2014/42.jpg" or "42.jpg" for "photos/val2014/42.jpg"). Without, the file name gives the number: it is
    the whole name or follows the last underscore.
    """
    if ids is not None:
        for candidate in (path, *_ends(path)):
            if candidate in ids:
                return ids[candidate]
        raise DataError(f"{path}: not among the {len(ids)} pictures of coco_images (--coco-images)")
    match = _NUMBER.fullmatch(os.path.basename(without_suffix(path)))  # noqa: PTH119  # a Path takes long
    if match is None:
        raise DataError(
            f"{path}: no COCO number in this file name, such as the 42 of COCO_val2014_000000000042.jpg: give "
            "coco_images (--coco-images FILE), a JSON file whose list 'images' holds 'id' and 'file_name'"
        )
    return int(match["id"])


def read_image_ids(file: Path) -> dict[str, int]:
    """Read COCO numbers by file name from a JSON file with a list "images" of {"id", "file_name"}.

    COCO's own annotation files have this list. Raises DataError, also if two pictures share a number or a name.
    """
    (images,) = values_of(read_json(file), "images")
    if not isinstance(images, list) or not images:
        raise DataError(f"{file}: has no list 'images' with the 'id' and 'file_name' of each picture")
    ids: dict[str, int] = {}
    names: dict[int, str] = {}
    for position, image in enumerate(images, start=1):
        number, name = values_of(image, "id", "file_name")
        if type(number) is not int or type(name) is not str or not name:
            raise DataError(f"{file}: entry {position} of 'images' needs an 'id' (a whole number) and a 'file_name'")
        if ids.setdefault(name, number) != number:
            raise DataError(f"{file}: {name} has the ids {ids[name]} and {number}")
        if names.setdefault(number, name) != name:
            raise DataError(f"{file}: id {number} stands for {names[number]} and {name}")
    return ids
