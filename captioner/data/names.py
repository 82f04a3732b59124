"""COCO's numbers for pictures: from the file name, or from a JSON file with an "images" list."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from captioner.errors import DataError

# COCO_val2014_000000000042.jpg, 000000000042.jpg
_NUMBER = re.compile(r"(?:.*_)?(?P<id>[0-9]+)", re.DOTALL)


def image_id(path: str, ids: Mapping[str, int] | None) -> int:
    """The COCO number of a picture. Raises DataError when it has none.

    With `ids` (see `read_image_ids`) it is found there by the path, or by the longest end of the path that is
    listed ("val2014/42.jpg" or "42.jpg" for "photos/val2014/42.jpg"). Without, the file name gives it: the number
    that is the whole name or follows the last underscore.
    """
    if ids is not None:
        parts = PurePath(path).parts
        for candidate in (path, *("/".join(parts[start:]) for start in range(len(parts)))):
            if candidate in ids:
                return ids[candidate]
        raise DataError(f"{path}: not among the {len(ids)} pictures of the --coco-images file")
    match = _NUMBER.fullmatch(PurePath(path).stem)
    if match is None:
        raise DataError(
            f"{path}: no COCO number in this file name, such as the 42 of COCO_val2014_000000000042.jpg: "
            f"give --coco-images FILE, a JSON file whose list 'images' holds 'id' and 'file_name'"
        )
    return int(match["id"])


def read_image_ids(file: Path) -> dict[str, int]:
    """COCO numbers by file name, from a JSON file with an "images" list of {"id", "file_name"}, as COCO's own
    annotation files have it. Raises DataError, also when a number or a name stands for two pictures.
    """
    content = read_json(file)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise DataError(f"{file}: has no list 'images' with the 'id' and 'file_name' of each picture")
    ids: dict[str, int] = {}
    names: dict[int, str] = {}
    for position, image in enumerate(images, start=1):
        number = image.get("id") if isinstance(image, dict) else None
        name = image.get("file_name") if isinstance(image, dict) else None
        if type(number) is not int or type(name) is not str or not name:
            raise DataError(f"{file}: entry {position} of 'images' needs an 'id' (a whole number) and a 'file_name'")
        if ids.setdefault(name, number) != number:
            raise DataError(f"{file}: {name} has the ids {ids[name]} and {number}")
        if names.setdefault(number, name) != name:
            raise DataError(f"{file}: id {number} stands for {names[number]} and {name}")
    return ids


def read_json(file: Path) -> Any:
    """The content of a JSON file. Raises DataError when it is none, OSError when it cannot be read."""
    content = file.read_bytes()
    if not content.strip():
        raise DataError(f"{file}: the file is empty")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise DataError(f"{file}: not a JSON file ({error})") from error
