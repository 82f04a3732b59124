"""The vectors of pictures by which they are found, from the features that captioning has computed anyway."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from captioner.bulk.index import Floats
from captioner.inference.reader import Reader

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.store import Keep, Named


class Vectors:
    """A store of features that knows none, so that all pictures are encoded, and keeps their vectors.

    It is for one call of `Captioner.caption_named`, which is given the pictures that come out of `numbered`.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._numbers: dict[int, int] = {}  # of pictures that were given out and not yet looked up
        self._found: dict[int, Floats] = {}

    def numbered(self, pictures: Iterable[Named]) -> Iterator[Named]:
        """The same pictures, as new pairs, known by their identity: two members of a tar file may have one name."""
        for number, (name, source) in enumerate(pictures):
            pair = (name, source)
            self._numbers[id(pair)] = number
            yield pair

    def look_up(self, pictures: Sequence[Named]) -> tuple[Sequence[Floats | None], Keep]:
        """As every `inference.store.FeatureStore` does."""
        numbers = [self._numbers.pop(id(picture)) for picture in pictures]

        def keep(places: Sequence[int], features: Floats) -> None:
            vectors = self._reader.pictures(features)
            self._found.update(zip((numbers[place] for place in places), vectors, strict=True))

        return [None] * len(pictures), keep

    def in_order(self) -> Floats:
        """The unit vectors (N, D) of the pictures that could be read, in their order."""
        found = [self._found[number] for number in sorted(self._found)]
        return np.array(found, np.float32).reshape(len(found), self._reader.size)
