"""What a worker of a cluster does: it holds the model, and makes rows of one unit of work after the other."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from captioner.bulk.index import Floats
from captioner.files import sha256_of
from captioner.inference.captioner import load
from captioner.inference.reader import Reader
from captioner.inference.results import Row, row_of
from captioner.inference.store import Keep, Named
from captioner.options import DecodeOptions

if TYPE_CHECKING:  # it needs the extra [ray]
    from captioner.bulk.sources import Picture, Unit

_OF_THE_PICTURE = ("digest", "vector", "error")  # what a row has that does not come from the decoder


@dataclass(frozen=True)
class Job:
    """How workers caption."""

    checkpoint: bytes  # the content of the file
    options: DecodeOptions
    prompt: str = ""
    batch_size: int = 32
    precision: str = "auto"
    vector_size: int = 0  # of the vectors beside captions; 0 for none
    recaption: bool = False  # also pictures that have a caption in their tar file or table

    def settings(self) -> dict[str, Any]:
        """What rows depend on, as plain data."""
        own = {name: getattr(self, name) for name in ("prompt", "precision", "vector_size", "recaption")}
        return {"checkpoint": hashlib.sha256(self.checkpoint).hexdigest(), **own, **asdict(self.options)}


class Worker:
    """The model of a process, with so many threads, on cpu or cuda. Relative paths begin in `folder`, if there is one.

    Raises what `load` raises.
    """

    def __init__(self, job: Job, threads: int, device: str, folder: str) -> None:
        with suppress(OSError):
            os.chdir(folder)
        torch.set_num_threads(threads)
        self._job = job
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "checkpoint.safetensors"
            path.write_bytes(job.checkpoint)
            self._model = load(path, device, job.precision)
            self._reader = self._model.reader() if job.vector_size else None

    def caption(self, unit: Unit) -> list[Row]:
        """The rows of a unit, as `inference.results.row_of` makes them, with the digest of the picture.

        The caption that a picture has already is `given`, and nobody looks at the picture unless its vector is wanted.
        """
        from captioner.bulk.sources import Given, pictures

        look = self._job.recaption or self._reader is not None
        given = list[Row]()  # for each picture

        def looked_at() -> Iterator[tuple[str, Picture]]:
            for name, source in pictures(unit, self._job.batch_size, look):
                caption, picture = source if isinstance(source, Given) else ("", source)
                kept = caption and not self._job.recaption
                given.append({"path": name, "caption": caption, "given": True} if kept else {})
                if look or not kept:
                    yield name, picture

        rows = iter(list(self._rows(looked_at())))
        return [self._with(row, next(rows) if look or not row else {}) for row in given]

    def _with(self, given: Row, row: Row) -> Row:
        return {**given, **{name: row[name] for name in _OF_THE_PICTURE if name in row}} if given else row

    def _rows(self, found: Iterable[Named]) -> Iterator[Row]:
        """A row of the model for each picture."""
        job, seen = self._job, Seen(self._reader)
        store = seen if self._reader else None
        found = seen.noted(found)
        captions = self._model.caption_named(found, job.options, job.batch_size, prompt=job.prompt, store=store)
        for number, row in enumerate(map(row_of, captions)):
            yield row if "error" in row else {**row, **seen.facts[number]}


class Seen:
    """What is found out about pictures besides their captions: their digests, and with a reader their vectors.

    As a store of features it knows none, so that all pictures are encoded. It is for one call of
    `Captioner.caption_named`, which is given the pictures that come out of `noted`.
    """

    def __init__(self, reader: Reader | None) -> None:
        self._reader = reader
        self._numbers: dict[int, int] = {}  # of pictures that were given out and not yet looked up
        self.facts: list[Row] = []  # of each picture

    def noted(self, pictures: Iterable[Named]) -> Iterator[Named]:
        """The same pictures, as new pairs, known by their identity: two members of a tar file may have one name."""
        for number, (name, source) in enumerate(pictures):
            picture = (name, source)
            self._numbers[id(picture)] = number
            self.facts.append({"digest": _digest(source)})
            yield picture

    def look_up(self, pictures: Sequence[Named]) -> tuple[Sequence[Floats | None], Keep]:
        """As every `inference.store.FeatureStore` does."""
        numbers = [self._numbers.pop(id(picture)) for picture in pictures]

        def keep(places: Sequence[int], features: Floats) -> None:
            assert self._reader
            for place, vector in zip(places, self._reader.pictures(features), strict=True):
                self.facts[numbers[place]]["vector"] = vector

        return [None] * len(pictures), keep


def _digest(source: object) -> str:
    """The SHA-256 of the content of a picture; empty if it cannot be read."""
    if isinstance(source, str):
        with suppress(OSError, ValueError):
            return sha256_of(Path(source))
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else ""
