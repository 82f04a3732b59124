"""Captions, split lists and pictures to examples: which picture has which captions, and what is trained on."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioner.data.readers import CaptionSet, lines, read_captions
from captioner.errors import DataError
from captioner.files import sha256_of

__all__ = [
    "CaptionSet",
    "DataError",
    "Example",
    "Split",
    "SplitNames",
    "alike",
    "choose_split",
    "find_examples",
    "find_files",
    "names_of_split",
    "present_names",
    "random_split",
    "read_captions",
    "read_split_list",
    "same_content",
    "split_names",
]

_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Example:
    """A picture with the captions that people wrote for it."""

    name: str  # as the captions file has it
    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class SplitNames:
    """Which pictures are learned from and which validated on, and `how` that was decided, as JSON."""

    train: list[str]
    validation: list[str]
    how: dict[str, Any]

    def overlap(self) -> list[str]:
        """The pictures that are in both."""
        return sorted(set(self.train) & set(self.validation))


@dataclass(frozen=True)
class Split:
    """The examples of a run and their origin, as JSON for the provenance; `notes` are lines for the person."""

    train: list[Example]
    validation: list[Example]
    origin: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def read_split_list(file: Path) -> list[str]:
    """Picture names, one a line (Flickr_8k.trainImages.txt). Raises DataError, also for an empty list."""
    names = list(dict.fromkeys(line.strip() for line in lines(file, "split list") if line.strip()))
    if not names:
        raise DataError(f"{file}: the split list is empty")
    return names


def find_files(names: Iterable[str], images: Path) -> dict[str, Path]:
    """The files of those pictures that are in the folder. Raises DataError when there is no such folder.

    A name may have folders in front that are not in this one, as "val2014/1.jpg" in Karpathy's files: then the file
    "1.jpg" will do, if no other name ends so.
    """
    if not images.is_dir():
        raise DataError(f"{images}: no such folder of pictures")
    names = list(names)
    ends = {name: re.split(r"[/\\]", name)[-1] for name in names}
    times = Counter(ends.values())
    files = {}
    for name, end in ends.items():
        if (images / name).is_file():
            files[name] = images / name
        elif end and times[end] == 1 and (images / end).is_file():
            files[name] = images / end
    return files


def present_names(captions: Mapping[str, Sequence[str]], images: Path) -> list[str]:
    """The captioned pictures that are in the folder. Raises DataError when there are none."""
    names = list(find_files(captions, images))
    if not names:
        raise DataError(
            f"{images}: holds none of the {len(captions)} captioned pictures, such as {next(iter(captions))}"
        )
    return names


def find_examples(captions: Mapping[str, Sequence[str]], images: Path, names: Iterable[str]) -> list[Example]:
    """The examples of the pictures in `names`. Raises DataError when a picture or its captions are missing."""
    names = list(names)
    files = find_files(names, images)
    silent = [name for name in names if name not in captions]
    missing = [name for name in names if name in captions and name not in files]
    for problem, those in ((f"are not in {images}", missing), ("have no captions", silent)):
        if those:
            raise DataError(f"{len(those)} of {len(names)} pictures {problem}: {_some(those)}")
    return [Example(name, files[name], tuple(captions[name])) for name in names]


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


def names_of_split(captions: CaptionSet, split: str) -> list[str]:
    """The pictures that the captions file itself puts into a split. Raises DataError when there are none."""
    names = [name for name, its in captions.splits.items() if its == split]
    if not names:
        there = ", ".join(f"{its} ({count})" for its, count in Counter(captions.splits.values()).items())
        raise DataError(
            f"{captions.path}: says of no picture that it belongs to {split!r}"
            + (f"; the splits are {there}" if there else f": {captions.form}, without splits")
        )
    return names


def split_names(
    captions: CaptionSet, present: Iterable[str], train_list: Path | None, val_list: Path | None, seed: int
) -> SplitNames:
    """Divide by the lists, or else by the splits in the captions file, or else at random.

    Where the first two name only what to learn from, a seeded tenth of that is held out. Lists are taken as they
    are, of the others only the pictures `present`. Raises DataError.
    """
    if val_list and not train_list:
        raise DataError("--val-list needs --train-list beside it")
    if train_list:
        how: dict[str, Any] = {"train_list": train_list.name}
        train = read_split_list(train_list)
        if val_list:
            return SplitNames(train, read_split_list(val_list), {**how, "val_list": val_list.name})
    elif captions.splits:
        how = {"field": "split"}
        there = set(present)
        train = [name for name in names_of_split(captions, "train") if name in there]
        validation = [name for name in there.intersection(captions.splits) if captions.splits[name] == "val"]
        if validation:
            return SplitNames(train, sorted(validation), how)
    else:
        how = {}
        train = list(present)
    train, validation = random_split(train, seed)
    return SplitNames(train, validation, {**how, "seed": seed, "validation": validation})


def choose_split(
    captions: CaptionSet, images: Path, train_list: Path | None, val_list: Path | None, seed: int
) -> Split:
    """The examples to learn from and to validate on: see `split_names`. No picture is in both.

    Raises DataError, also when a picture of the lists is missing; without lists such pictures are passed over.
    """
    present = [] if train_list else present_names(captions.captions, images)
    names = split_names(captions, present, train_list, val_list, seed)
    both = names.overlap()
    if both:
        raise DataError(f"{len(both)} pictures are in both split lists, such as {both[0]}")
    train, validation = (find_examples(captions.captions, images, those) for those in (names.train, names.validation))
    there = set(captions.captions if train_list else present)
    missing = [name for name in captions.captions if name not in there]
    notes = []
    if captions.empty:
        notes.append(f"{captions.empty} empty captions are left out")
    if missing:
        notes.append(
            f"{len(missing)} of {len(captions.captions)} captioned pictures are not in {images} and are left out: "
            f"{_some(missing)}"
        )
    origin = {
        "captions": captions.path.name,
        "sha256": _digest(captions),
        "form": captions.form,
        "split": names.how,
        "train_pictures": len(train),
        "validation_pictures": len(validation),
        "train_captions": sum(len(example.captions) for example in train),
        "validation_captions": sum(len(example.captions) for example in validation),
        "missing_pictures": len(missing),
    }
    return Split(train, validation, origin, notes)


def _digest(captions: CaptionSet) -> str:
    """The SHA-256 of the captions file; of a folder, that of its captions."""
    if captions.path.is_dir():
        return hashlib.sha256(json.dumps(captions.captions).encode()).hexdigest()
    return sha256_of(captions.path)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def alike(paths: Iterable[Path]) -> list[list[Path]]:
    """Files with the same bytes, in groups of at least two. Only files of equal size are read."""
    groups = []
    for size in _grouped(paths, lambda path: path.stat().st_size):
        groups += _grouped(size, sha256_of)
    return groups


def _grouped(paths: Iterable[Path], key: Any) -> list[list[Path]]:
    groups: dict[Any, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return [those for those in groups.values() if len(those) > 1]


def same_content(split: Split) -> list[tuple[str, str]]:
    """Names of pictures to learn from and to validate on whose files are the same, byte for byte."""
    train = {example.path: example.name for example in split.train}
    validation = {example.path: example.name for example in split.validation}
    # What has the size of no picture to validate on need not be read.
    sizes = {path.stat().st_size for path in validation}
    pairs = []
    for group in alike([*validation, *(path for path in train if path.stat().st_size in sizes)]):
        pairs += [(train[a], validation[b]) for a in group if a in train for b in group if b in validation]
    return pairs
