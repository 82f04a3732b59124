"""Which pictures are learned from and which are validated on, and the examples made of them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from captioner.data.captions import CaptionSet
from captioner.data.names import KnownPictures, find_files
from captioner.data.readers.base import text_lines
from captioner.errors import DataError, OptionError, counted, some
from captioner.files import digest_of, sha256_of


@dataclass(frozen=True)
class Example:
    """A picture with the captions that people wrote for it."""

    name: str  # as in the captions file
    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class SplitNames:
    """The names of the pictures to learn from and to validate on; `how` says as JSON what decided that."""

    train: list[str]
    validation: list[str]
    how: dict[str, Any]

    def overlap(self) -> list[str]:
        """The names that are in both parts."""
        return sorted(set(self.train) & set(self.validation))


@dataclass(frozen=True)
class Split:
    """The examples to learn from and to validate on.

    `origin` describes them as JSON for the provenance of a checkpoint; `notes` are messages for the user.
    """

    train: list[Example]
    validation: list[Example]
    origin: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def read_split_list(file: str | Path) -> list[str]:
    """Read picture names, one a line (Flickr_8k.trainImages.txt). Raises DataError, also if there are none."""
    names = list(dict.fromkeys(line.strip() for line in text_lines(Path(file), "split list") if line.strip()))
    if not names:
        raise DataError(f"{file}: the split list is empty")
    return names


def listed_names(file: str | Path, known: KnownPictures) -> list[str]:
    """The names in a split list as the captions file writes them, where it has these pictures. Raises DataError."""
    return list(dict.fromkeys(known.named(name) or name for name in read_split_list(file)))


def present_files(captions: Mapping[str, Sequence[str]], images: Path) -> dict[str, Path]:
    """The captioned pictures that are in the folder, by their names.

    Raises DataError if there are none, or only one although more are captioned.
    """
    files = find_files(captions, images)
    if len(files) < min(2, len(captions)):
        held = "none" if not files else "only 1"
        where = missing(captions, files, images)
        raise DataError(f"{images}: holds {held} of the {counted(len(captions), 'captioned picture')}: {where}")
    return files


def missing(captions: Iterable[str], present: Iterable[str], images: Path) -> str:
    """How many captioned pictures are missing, and where they were looked for; empty if none is."""
    there, names = set(present), list(captions)
    lost = [name for name in names if name not in there]
    if not lost:
        return ""
    looked = " and ".join(map(str, dict.fromkeys((images / lost[0], images / PurePath(lost[0]).name))))
    return f"missing {len(lost)} of {len(names)}, such as {lost[0]}, looked for as {looked}"


def find_examples(captions: Mapping[str, Sequence[str]], images: Path, names: Iterable[str]) -> list[Example]:
    """The examples of the pictures in `names`. Raises DataError if a picture or its captions are missing."""
    names = list(names)
    files = find_files(names, images)
    uncaptioned = [name for name in names if name not in captions]
    missing = [name for name in names if name in captions and name not in files]
    for problem, those in ((f"not in {images}", missing), ("without captions", uncaptioned)):
        if those:
            raise DataError(f"{len(those)} of {counted(len(names), 'picture')} {problem}: {some(those)}")
    return [Example(name, files[name], tuple(captions[name])) for name in names]


def random_split(names: Iterable[str], seed: int, share: float = 0.1) -> tuple[list[str], list[str]]:
    """Draw the share of the names (at least one) to validate on; returns the names to train on, and these.

    The seed decides, not the order of the names. Raises DataError for fewer than two pictures.
    """
    shuffled = sorted(set(names))
    if len(shuffled) < 2:
        needed = "at least 2 captioned pictures are needed, one to learn from and one to validate on"
        raise DataError(f"{needed}; there are {len(shuffled)}")
    random.Random(seed).shuffle(shuffled)
    held_out = min(max(1, round(share * len(shuffled))), len(shuffled) - 1)
    return sorted(shuffled[held_out:]), sorted(shuffled[:held_out])


def names_of_split(captions: CaptionSet, split: str) -> list[str]:
    """The pictures that the captions file itself assigns to a split. Raises DataError if there are none."""
    names = [name for name, its in captions.splits.items() if its == split]
    if not names:
        there = ", ".join(f"{its} ({count})" for its, count in Counter(captions.splits.values()).items())
        others = f"; the splits are {there}" if there else f": {captions.form}, without splits"
        raise DataError(f"{captions.path}: says of no picture that it belongs to {split!r}{others}")
    return names


def split_names(
    captions: CaptionSet, present: Iterable[str], train_list: str | Path | None, val_list: str | Path | None, seed: int
) -> SplitNames:
    """Divide the pictures by the lists, or else by the splits in the captions file, or else at random.

    If lists or file name only pictures to learn from, a tenth of these is drawn to validate on. All names in a list
    count; in the other cases only the pictures in `present` do. Raises DataError, OptionError.
    """
    if val_list and not train_list:
        raise OptionError("val_list (--val-list) needs train_list (--train-list): give both, or leave both out")
    if train_list:
        how: dict[str, Any] = {"train_list": Path(train_list).name}
        known = KnownPictures(captions.captions)
        train = listed_names(train_list, known)
        if val_list:
            validation = listed_names(val_list, known)
            return SplitNames(train, validation, {**how, "val_list": Path(val_list).name})
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
    captions: CaptionSet, images: Path, train_list: str | Path | None, val_list: str | Path | None, seed: int
) -> Split:
    """The examples to learn from and to validate on: see `split_names`. No picture is in both.

    Raises DataError, also if a picture of a list is missing. Without lists, missing pictures are left out.
    """
    captions = captions.with_words()
    present = dict.fromkeys(captions.captions if train_list else present_files(captions.captions, images))
    try:
        names = split_names(captions, present, train_list, val_list, seed)
    except DataError as error:
        where = missing(captions.captions, present, images)
        raise DataError(f"{error}; {where}" if where else str(error)) from error
    if both := names.overlap():
        raise DataError(f"{counted(len(both), 'picture')} in both split lists, such as {both[0]}")
    train, validation = (find_examples(captions.captions, images, those) for those in (names.train, names.validation))
    notes = list(captions.notes)
    if captions.empty:
        notes.append(f"left out: {counted(captions.empty, 'empty caption')}")
    if lost := [name for name in captions.captions if name not in present]:
        count = f"{len(lost)} of {counted(len(captions.captions), 'captioned picture')}"
        notes.append(f"left out: {count}, not in {images}: {some(lost)}")
    origin = {
        "captions": captions.path.name,
        "sha256": digest_of(captions.path, captions.captions),
        "form": captions.form,
        "split": names.how,
        "train_pictures": len(train),
        "validation_pictures": len(validation),
        "train_captions": sum(len(example.captions) for example in train),
        "validation_captions": sum(len(example.captions) for example in validation),
        "missing_pictures": len(lost),
    }
    return Split(train, validation, origin, notes)


def identical_files(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of at least two files with the same bytes. Only files of equal size are read."""
    by_size = _grouped(paths, lambda path: path.stat().st_size)
    return [group for same_size in by_size for group in _grouped(same_size, sha256_of)]


def _grouped(paths: Iterable[Path], key: Any) -> list[list[Path]]:
    groups: dict[Any, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return [those for those in groups.values() if len(those) > 1]


def same_content(split: Split) -> list[tuple[str, str]]:
    """Pairs of names, one to learn from and one to validate on, whose files have the same bytes."""
    train = {example.path: example.name for example in split.train}
    validation = {example.path: example.name for example in split.validation}
    # A file whose size no picture to validate on has need not be read.
    sizes = {path.stat().st_size for path in validation}
    pairs = []
    for group in identical_files([*validation, *(path for path in train if path.stat().st_size in sizes)]):
        pairs += [(train[a], validation[b]) for a in group if a in train for b in group if b in validation]
    return pairs
