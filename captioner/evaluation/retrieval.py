"""Retrieval: how high the right picture comes for a sentence, and the right sentence for a picture.

As the literature of this task measures it (Hodosh et al. 2013, "Framing image description as a ranking task"): R@K is
the share of queries, in percent, with a right answer among the first K, beside the median rank of the first right one.
Shapes: P pictures, S sentences, D size of the space.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from captioner.data.captions import read_captions
from captioner.errors import DataError, ImageError
from captioner.evaluation.pairs import Pairs
from captioner.evaluation.run import Model
from captioner.evaluation.scores import COMPUTES, markdown_table, recipe_of, span

Vectors = NDArray[np.float32]
Ranks = NDArray[np.int64]
AT = (1, 5, 10)
DIRECTIONS = {"picture_by_sentence": "picture by sentence", "sentence_by_picture": "sentence by picture"}
RETRIEVAL_FORMAT = "captioner retrieval 1"
_BLOCK = 1024  # queries at a time, so that memory does not grow with the square of the set
_READ = 256  # pictures at a time
_SHOWN = 5  # pictures that are kept of each query


class Reader(Protocol):
    """What retrieval needs of a checkpoint's matcher: unit vectors of sentences, and of features."""

    def sentences(self, texts: Sequence[str]) -> Vectors: ...
    def pictures(self, features: Vectors) -> Vectors: ...


class Finder(Model, Protocol):
    """What retrieval needs of a `Captioner`."""

    def reader(self) -> Reader: ...
    def encode(self, images: Any) -> Any: ...


@dataclass(frozen=True)
class Query:
    """A sentence, the name of its picture and the rank of that, and the names of the pictures that come first."""

    sentence: str
    name: str
    rank: int
    found: tuple[str, ...]


@dataclass(frozen=True)
class Retrieval:
    """How well sentences find pictures, and pictures sentences. `scores` are those of `retrieval_scores`."""

    scores: dict[str, Any]
    queries: tuple[Query, ...]
    recipe: str
    files: Mapping[str, Path] = field(default_factory=dict)  # of the pictures
    problems: Mapping[str, Sequence[str]] = field(default_factory=dict)  # names of pictures left out, by problem

    def table(self) -> str:
        """The scores as a Markdown table."""
        rows = [
            [label, *(f"{self.scores[name][f'r{k}']:.1f}" for k in AT), f"{self.scores[name]['median']:g}"]
            for name, label in DIRECTIONS.items()
        ]
        return markdown_table(["", *(f"R@{k}" for k in AT), "median rank"], rows)

    def to_json(self) -> str:
        """The scores as JSON with one query a line. The same evaluation gives the same bytes."""
        head = {"format": RETRIEVAL_FORMAT, **self.scores, "problems": dict(self.problems), "recipe": self.recipe}
        lines = ",\n".join("    " + json.dumps(vars(query)) for query in self.queries)
        return json.dumps(head, indent=2)[:-2] + f',\n  "queries": [\n{lines}\n  ]\n}}\n'


def evaluate_retrieval(
    captions: str | Path,
    *,
    images: str | Path,
    model: Finder | Callable[[], Finder],
    split: str | None = None,
    split_list: str | Path | None = None,
    allow_missing: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> Retrieval:
    """Measure how well the sentences that people wrote find their pictures; what `captioner evaluate --retrieval` does.

    The arguments are those of `evaluate`. Every caption is a query among all pictures, and every picture among all
    captions. Raises OptionError, DataError and CheckpointError, the last for a checkpoint without a matcher.
    """
    known = read_captions(Path(captions))
    for note in known.notes:
        say(f"{captions}: {note}")
    pairs = Pairs.of(known, split, split_list, allow_missing)
    pairs.find_pictures(Path(images))
    model = model() if callable(model) else model
    reader, digest = model.reader(), model.digest()
    names, vectors = [], []
    batches = [list(pairs.files)[begin : begin + _READ] for begin in range(0, len(pairs.files), _READ)]
    for batch in progress(batches, total=len(batches), unit="batch") if progress else batches:
        for name, feature in _encoded(model, {name: pairs.files[name] for name in batch}, pairs, say):
            names.append(name)
            vectors.append(reader.pictures(feature)[0])
    pairs.refuse()
    if not names:
        raise DataError("no picture has both captions and a readable file")
    for line in pairs.described():
        say(f"warning: {line}")
    texts = [(place, text) for place, name in enumerate(names) for text in pairs.references[name]]
    owner, pictures = np.array([place for place, _ in texts]), np.stack(vectors)
    sentences = reader.sentences([text for _, text in texts])
    found = ranks(sentences, pictures, owner)
    queries = tuple(
        Query(text, names[place], int(rank), tuple(names[best] for best in first))
        for (place, text), rank, first in zip(texts, found[0], _first(sentences, pictures), strict=True)
    )
    content = json.dumps([[name, pairs.references[name]] for name in names])
    parts = {
        "metrics": "recall+median_rank",
        "images": len(names),
        "refs": span([len(pairs.references[name]) for name in names]),
        "refs_sha": hashlib.sha256(content.encode()).hexdigest()[:12],
        **{"precision": model.precision, "engine": model.engine, "checkpoint": digest[:12]},
    }
    recipe = recipe_of(parts, pairs.problems, ["captioner", *COMPUTES.get(model.engine, [])])
    return Retrieval(retrieval_scores(*found), queries, recipe, pairs.files, pairs.problems)


def _encoded(
    model: Finder, files: Mapping[str, Path], pairs: Pairs, say: Callable[[str], None]
) -> Iterator[tuple[str, Vectors]]:
    """The names of pictures and their features (1, F). What cannot be read is noted."""
    try:
        yield from zip(files, model.encode(list(files.values()))[:, None], strict=True)
    except ImageError as error:
        if len(files) == 1:
            say(str(error))
            pairs.note("unreadable", list(files))
            return
        for name, file in files.items():
            yield from _encoded(model, {name: file}, pairs, say)


def _first(sentences: Vectors, pictures: Vectors) -> Iterator[list[int]]:
    """The places of the pictures that come first for each sentence, the best one first."""
    for begin in range(0, len(sentences), _BLOCK):
        scores = sentences[begin : begin + _BLOCK] @ pictures.T
        yield from np.argsort(-scores, axis=1, kind="stable")[:, :_SHOWN].tolist()


def ranks(sentences: Vectors, pictures: Vectors, owner: NDArray[np.int64]) -> tuple[Ranks, Ranks]:
    """The rank of the right picture for each sentence, (S,), and of the first right sentence for each picture, (P,).

    `sentences` (S, D) and `pictures` (P, D) are unit vectors, and sentence s is of picture `owner[s]`. Ranks begin at
    1. Wrong answers that score the same as the right one come before it, so that vectors which are all alike find
    nothing. The rank of a picture without a sentence is 0.
    """
    by_sentence, by_picture = np.zeros(len(sentences), np.int64), np.zeros(len(pictures), np.int64)
    for begin in range(0, len(sentences), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        scores = sentences[part] @ pictures.T
        right = scores[np.arange(len(scores)), owner[part]]
        by_sentence[part] = (scores >= right[:, None]).sum(1)  # the right one is one of them
    for begin in range(0, len(pictures), _BLOCK):
        scores = pictures[begin : begin + _BLOCK] @ sentences.T
        own = owner == np.arange(begin, begin + len(scores))[:, None]
        best = np.where(own, scores, -np.inf).max(1, initial=-np.inf)
        found = 1 + ((scores >= best[:, None]) & ~own).sum(1)
        by_picture[begin : begin + _BLOCK] = np.where(own.any(1), found, 0)
    return by_sentence, by_picture


def recalls(found: Ranks) -> dict[str, float]:
    """R@1, R@5 and R@10 in percent, and the median rank."""
    found = found[found > 0]
    shares = {f"r{k}": round(100.0 * float((found <= k).mean()), 2) for k in AT}
    return {**shares, "median": float(np.median(found))}


def retrieval_scores(of_sentences: Ranks, of_pictures: Ranks) -> dict[str, Any]:
    """Both directions of `recalls`, from what `ranks` returns, and `recall`, the mean of all their R@K."""
    found = {name: recalls(of) for name, of in zip(DIRECTIONS, (of_sentences, of_pictures), strict=True)}
    mean = sum(scores[f"r{k}"] for scores in found.values() for k in AT) / (2 * len(AT))
    return {**found, "recall": round(mean, 2), "pictures": len(of_pictures), "sentences": len(of_sentences)}
