"""Captions beside the references of the same pictures, and the pictures that lack one of the two."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from captioner.data.captions import CaptionSet
from captioner.data.names import KnownPictures, find_files, read_image_ids
from captioner.data.splits import listed_names, names_of_split
from captioner.errors import DataError, counted, some
from captioner.evaluation.predictions import match, read_predictions
from captioner.evaluation.scores import Evaluation, score_pictures
from captioner.files import digest_of
from captioner.pictures.find import find_pictures
from captioner.vocab import tokenise

# What may be wrong with a picture (or several pictures), by the name that it has in the JSON.
_PROBLEMS = {
    "no_references": ("picture without references", "pictures without references"),
    "no_picture": ("picture is not in the folder", "pictures are not in the folder"),
    "unreadable": ("picture cannot be read", "pictures cannot be read"),
    "no_caption": ("picture has references but no caption", "pictures have references but no caption"),
    "repeated": ("picture has several captions", "pictures have several captions"),
    "empty_references": ("picture has a reference without words", "pictures have references without words"),
    "empty": ("caption has no words", "captions have no words"),
}


@dataclass
class Pairs:
    """The captions to score and their references, both by picture name, and the problems that were found."""

    references: dict[str, list[str]]  # of the pictures to evaluate on
    captions: dict[str, str] = field(default_factory=dict)
    words: dict[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)  # with probabilities, where known
    confidence: dict[str, tuple[float, float]] = field(default_factory=dict)  # and familiarity, where known
    files: dict[str, Path] = field(default_factory=dict)  # of the pictures, where known
    images: Path | None = None  # the folder in which they were looked for
    selected: bool = False  # whether a split says which pictures to evaluate on
    allow_missing: bool = False
    problems: dict[str, list[str]] = field(default_factory=dict)  # names of pictures by the keys of _PROBLEMS

    def scored(self, tokens: str) -> Evaluation:
        """The scores of the captions, with all that is known of them."""
        result = score_pictures(self.captions, self.references, tokens)
        result = replace(result, problems=self.problems, files=self.files)
        return replace(result, words=self.words, confidence=self.confidence)

    @classmethod
    def of(
        cls, known: CaptionSet, split: str | None, split_list: str | Path | None, allow_missing: bool = False
    ) -> Pairs:
        """The references of the pictures to evaluate on: those of a list, of a split in the captions file, or all.

        References without a word are left out. Raises DataError.
        """
        if split_list:
            names = listed_names(split_list, KnownPictures(known.captions))
        else:
            names = names_of_split(known, split) if split else list(known.captions)
        pairs = cls({}, selected=bool(split or split_list), allow_missing=allow_missing)
        for name in names:
            texts = known.captions.get(name, [])
            references = [text for text in texts if tokenise(text)]
            if references:
                pairs.references[name] = references
            if not references or len(references) < len(texts):
                pairs.note("empty_references" if references else "no_references", [name])
        return pairs

    def add_predictions(
        self, file: Path, known: CaptionSet, coco_images: str | Path | None, say: Callable[[str], None]
    ) -> dict[str, str]:
        """Take the captions from a file of predictions, or from texts beside pictures in a folder.

        The ids of the references decide what an image_id means, unless `coco_images` does. Returns what the recipe
        says of the captions. Raises DataError.
        """
        notes: list[str] = []
        predictions = read_predictions(file, notes)
        for note in notes:
            say(f"{file}: {note}")
        ids = read_image_ids(Path(coco_images)) if coco_images else known.ids or None
        matched, repeated, unknown = match(predictions, known.captions, ids)
        for name in self.references:
            if name in matched:
                self.captions[name], self.words[name] = matched[name].caption, matched[name].words
        self.note("no_references", unknown)
        self.note("no_caption", [name for name in self.references if name not in self.captions])
        self.note("repeated", [name for name in repeated if name in self.captions])
        if others := len(matched) - len(self.captions):
            say(f"{counted(others, 'caption')} of pictures that are not evaluated")
        return {"predictions": digest_of(file, [(one.picture, one.caption) for one in predictions])[:12]}

    def find_pictures(self, images: Path) -> None:
        """Find the files of the pictures in a folder.

        Raises DataError for missing pictures and, if all pictures are evaluated, for those without references.
        """
        self.images, self.files = images, find_files(self.references, images)
        self.note("no_picture", [name for name in self.references if name not in self.files])
        if self.files and not self.selected:
            known = set(self.files.values())
            others = [path for path in find_pictures([str(images)], recursive=True) if Path(path) not in known]
            self.note("no_references", [os.path.relpath(path, images) for path in others])
        self.refuse()  # before minutes of work

    def note(self, problem: str, names: Sequence[str]) -> None:
        """Note a problem of these pictures; without names there is none."""
        if names:
            self.problems.setdefault(problem, []).extend(names)

    def described(self) -> list[str]:
        """One phrase for each problem, with the number of pictures and the first names."""
        found = self.problems.items()
        return [f"{len(names)} {_PROBLEMS[problem][len(names) > 1]} ({some(names, 5)})" for problem, names in found]

    def refuse(self) -> None:
        """Raise DataError if there are problems that are not allowed."""
        if self.problems and not self.allow_missing:
            hint = "" if self.selected else "name the pictures to evaluate on with split_list (--split-list FILE), or "
            found = "; ".join(self.described())
            if lost := len(self.problems.get("no_picture", ())):
                hint = f"{self.images} lacks {lost} of {counted(len(self.references), 'picture')}: {hint}"
            raise DataError(f"{found}: {hint}leave such pictures out with allow_missing (--allow-missing)")
