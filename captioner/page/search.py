"""Pictures that a person looks for in their own words."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
import streamlit as st

import captioner
from captioner.bulk.find import Index, open_index
from captioner.bulk.index import Floats
from captioner.bulk.progress import Progress
from captioner.errors import CheckpointError
from captioner.inference.reader import Reader
from captioner.inference.results import Row
from captioner.inference.store import Keep, Named


@dataclass(frozen=True)
class Answer:
    """What a search has found so far."""

    asked: tuple[str, Path | None] = ("", None)  # the description, and the model's file
    ranks: dict[str, int] | None = None  # of pictures, from 0, the best; None where the list is not ordered by them
    unknown: tuple[str, ...] = ()  # words of the description that the model does not know
    lost: bool = False  # whether it knows none of them
    problem: str = ""  # why pictures cannot be found

    @property
    def waits(self) -> bool:
        """Whether the pictures are still being looked at."""
        return bool(self.asked[0]) and self.ranks is None and not (self.lost or self.problem)


@st.cache_resource(show_spinner=False, hash_funcs={"captioner.inference.captioner.Captioner": attrgetter("path")})
def reader_of(model: captioner.Captioner) -> Reader | None:
    """What reads descriptions for this model. None where it finds no pictures."""
    try:
        return model.reader()
    except CheckpointError:
        return None


class Vectors:
    """Vectors (D,) of pictures by name. As a `FeatureStore` it keeps what captioning has encoded."""

    def __init__(self, reader: Reader):
        self._reader = reader
        self.found: dict[str, Floats] = {}

    def look_up(self, pictures: Sequence[Named]) -> tuple[Sequence[Floats | None], Keep]:
        """No features, since each upload is new, and what keeps vectors of them."""

        def keep(places: Sequence[int], features: Floats) -> None:
            vectors = self._reader.pictures(features)
            self.found.update(zip([pictures[place][0] for place in places], vectors, strict=True))

        return [None] * len(pictures), keep

    def ranked(self, text: str) -> list[str]:
        """The names of the pictures that a sentence describes, the best first."""
        paths, sentence = list(self.found), self._reader.sentences([text])[0]
        if not paths:
            return []
        scores = np.stack([self.found[path] for path in paths]) @ sentence
        return [paths[place] for place in np.argsort(-scores, kind="stable")]


class FileSearch(Progress):
    """The index of files. It is opened in a thread of its own, since pictures that are new to it are encoded first."""

    def __init__(self, files: Sequence[str], model: captioner.Captioner):
        super().__init__(quiet=True, say=lambda line: None)
        self.done, self.total = 0, len(files)
        self._opened: Future[Index] = Future()
        self._last: tuple[str, list[str]] = ("", [])
        self._thread = threading.Thread(target=self._open, args=(files, model), daemon=True)
        self._thread.start()

    def begin(self, total: int | None, skipped: int = 0) -> None:
        """Take those that need not be encoded for done."""
        self.done = self.total - (total or 0)
        super().begin(total, skipped)

    def watch(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Count pictures as they are encoded."""
        for row in super().watch(rows):
            self.done += 1
            yield row

    def wait(self, seconds: float) -> None:
        """Wait at most so many seconds for the index to be open."""
        self._thread.join(seconds)

    def ranked(self, text: str) -> list[str] | None:
        """The files that a sentence describes, the best first. None until the index is open.

        Raises what `open_index` raises.
        """
        if not self._opened.done():
            return None
        index = self._opened.result()
        if self._last[0] != text:
            self._last = text, [match.path for match in index.find(text, max(1, len(index)))]
        return self._last[1]

    def _open(self, files: Sequence[str], model: captioner.Captioner) -> None:
        try:
            self._opened.set_result(open_index(files, model=model, progress=self))
        except Exception as error:  # it is raised again for the person who waits
            self._opened.set_exception(error)
