"""Captions files and split lists to examples: which picture has which captions, and what is trained on."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.errors import UserError

# NAME.jpg#0<TAB>A caption .
_FLICKR_LINE = re.compile(r"(?P<name>[^\t]+)#\d+\t(?P<caption>.*)")


class DataError(UserError):
    """A captions file, a split list or a folder of pictures is not as it should be."""


@dataclass(frozen=True)
class Example:
    """A picture with the captions that people wrote for it."""

    name: str  # as the captions file has it
    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """The examples of a run and what is known of their origin, for the provenance."""

    train: list[Example]
    validation: list[Example]
    origin: dict[str, Any]


def read_captions(file: Path) -> dict[str, list[str]]:
    """Captions by picture name, in the order of the file. Raises DataError.

    Reads the Flickr8k and Flickr30k form, one `NAME.jpg#0<TAB>caption` a line.
    """
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(file, "captions file"), start=1):
        if not line.strip():
            continue
        match = _FLICKR_LINE.fullmatch(line)
        if match is None:
            raise DataError(
                f"{file}: line {number} is not in the known form 'NAME.jpg#0<TAB>caption' "
                f"(Flickr8k.token.txt): {line[:80]!r}"
            )
        captions.setdefault(match["name"], []).append(match["caption"].strip())
    if not captions:
        raise DataError(f"{file}: the captions file is empty")
    return captions


def read_split_list(file: Path) -> list[str]:
    """Picture names, one a line (Flickr_8k.trainImages.txt). Raises DataError, also for an empty list."""
    names = list(dict.fromkeys(line.strip() for line in _lines(file, "split list") if line.strip()))
    if not names:
        raise DataError(f"{file}: the split list is empty")
    return names


def _lines(file: Path, what: str) -> Iterable[str]:
    if not file.is_file():
        raise DataError(f"{file}: no such {what}")
    try:
        # Split at "\n" alone: a caption may hold characters that str.splitlines takes for line ends.
        return file.read_text(encoding="utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def find_examples(captions: dict[str, list[str]], images: Path, names: Iterable[str]) -> list[Example]:
    """The examples of the pictures in `names`. Raises DataError when a picture or its captions are missing."""
    if not images.is_dir():
        raise DataError(f"{images}: no such folder of pictures")
    examples, missing, silent = [], [], []
    for name in names:
        path = images / name
        if name not in captions:
            silent.append(name)
        elif not path.is_file():
            missing.append(name)
        else:
            examples.append(Example(name, path, tuple(captions[name])))
    for problem, those in ((f"are not in {images}", missing), ("have no captions", silent)):
        if those:
            some = ", ".join(those[:3]) + (", ..." if len(those) > 3 else "")
            total = len(examples) + len(missing) + len(silent)
            raise DataError(f"{len(those)} of {total} pictures {problem}: {some}")
    return examples


def random_split(names: Iterable[str], seed: int, share: float = 0.1) -> tuple[list[str], list[str]]:
    """Train and validation names: a seeded tenth of the pictures (at least one) is held out.

    Raises DataError for fewer than two pictures.
    """
    shuffled = sorted(set(names))
    if len(shuffled) < 2:
        raise DataError(
            f"at least 2 captioned pictures are needed, one to learn from and one to validate on; there are "
            f"{len(shuffled)}"
        )
    random.Random(seed).shuffle(shuffled)
    held_out = min(max(1, round(share * len(shuffled))), len(shuffled) - 1)
    return sorted(shuffled[held_out:]), sorted(shuffled[:held_out])


def present_names(captions: dict[str, list[str]], images: Path) -> list[str]:
    """The captioned pictures that are in the folder. Raises DataError when there are none."""
    if not images.is_dir():
        raise DataError(f"{images}: no such folder of pictures")
    names = [name for name in captions if (images / name).is_file()]
    if not names:
        raise DataError(
            f"{images}: holds none of the {len(captions)} captioned pictures, such as {next(iter(captions))}"
        )
    return names
