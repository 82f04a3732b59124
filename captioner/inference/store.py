"""From a batch of pictures to features, some of which may be known already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from captioner.errors import ImageError
from captioner.inference.engine import Engine
from captioner.inference.results import FileResult
from captioner.pictures.load import ImageSource

Named: TypeAlias = "tuple[str, ImageSource | ImageError]"  # a picture's name, and where it is
Keep: TypeAlias = "Callable[[Sequence[int], NDArray[np.float32]], None]"


class FeatureStore(Protocol):
    """Features of pictures that were encoded before, as `bulk/reuse.py` has them. Threads share it."""

    def look_up(self, pictures: Sequence[Named]) -> tuple[Sequence[NDArray[np.float32] | None], Keep]:
        """The features (F,) of each picture of a batch, None where they are not known, and what keeps new ones.

        That is called with the places in the batch of pictures that were encoded together, and with their features.
        """


def encode_together(
    engine: Engine, pictures: Sequence[Named], store: FeatureStore | None
) -> tuple[list[FileResult], NDArray[np.float32]]:
    """A result for each picture, without a caption, and the features (N, F) of those that can be read."""
    results, pixels, there = [], [], list[int]()
    known, keep = store.look_up(pictures) if store else ([None] * len(pictures), None)
    for place, (name, source) in enumerate(pictures):
        try:
            if isinstance(source, ImageError):
                raise source
            if known[place] is None:
                pixels.append(engine.about.preprocess.read(source, name))
            there.append(place)
            results.append(FileResult(name, None))
        except ImageError as error:
            results.append(FileResult(name, None, str(error)))
    encoded = engine.encode(np.stack(pixels)) if pixels else np.empty((0, engine.feature_size), dtype=np.float32)
    if keep and pixels:
        keep([place for place in there if known[place] is None], encoded)
    if len(encoded) == len(there):  # nothing was known
        return results, encoded
    fresh, rows = iter(encoded), [known[place] for place in there]
    return results, np.stack([next(fresh) if row is None else row for row in rows])
