"""Which pictures a person should caption next, so that a model learns most from them: `propose`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from captioner.bulk.formats import csv_lines, format_of
from captioner.bulk.index import Floats
from captioner.bulk.outputs import Output
from captioner.bulk.read import caption_of
from captioner.bulk.run import check_waiting, loaded
from captioner.bulk.wanted import in_one
from captioner.errors import DataError, ImageError, InputError, OptionError, one_line
from captioner.files import AnyPath, listed
from captioner.inference.parallel import in_batches, in_order
from captioner.machine import available_cpus
from captioner.metadata import embedded
from captioner.metadata.sidecars import Sidecars
from captioner.options import PLACES, DecodeOptions
from captioner.pictures.find import find_pictures

if TYPE_CHECKING:  # they import torch
    from captioner.inference.captioner import Captioner
    from captioner.inference.results import Row


def propose(
    paths: AnyPath | Iterable[AnyPath],
    output: AnyPath | TextIO | None = None,
    *,
    number: int = 50,
    everything: bool = False,
    model: Captioner | Callable[[], Captioner] | None = None,
    recursive: bool = False,
    progress: Callable[[Iterable[Any]], Iterator[Any]] = iter,
    say: Callable[[str], object] = lambda line: None,
) -> list[Row]:
    """Choose the pictures that a person should caption next, the most useful first; what `captioner data next` does.

        captioner.propose("photos", "next.csv", number=50)

    They are those of whose captions the model is least sure, spread over all kinds of pictures: core-set selection
    (Sener and Savarese, "Active Learning for Convolutional Neural Networks", 2018) in which distances between features
    are multiplied by 1 - confidence. Pictures for which a person has written a caption are left out, unless
    `everything` is wanted, and so are those that the csv file `output` holds; the new rows are added to it, with the
    captions of the model, to be corrected. `paths`, `model` and `recursive` are those of `caption_files`. `progress`
    is called with the pictures, and passes them on. `say` takes a line for each picture that cannot be read.
    Raises InputError if no picture is left, OptionError, OutputError, CheckpointError and DeviceError.
    """
    if number < 1:
        raise OptionError(f"number (-n) must be at least 1, not {number}")
    place = Path(output) if isinstance(output, str | os.PathLike) else output
    if isinstance(place, Path) and format_of(place) != "csv":
        raise OptionError(f"{output}: will hold csv: give a name that ends in .csv")
    target = in_one(place, "csv", 1, _table) if place else Output()
    found = find_pictures(listed(paths), recursive)
    sidecars = Sidecars()  # one for all, because it lists each folder once
    left = [path for path in found if not target.holds(path) and (everything or not _captioned(path, sidecars))]
    if not left:
        raise InputError(f"{one_line(found[0])} and all others have captions of people: add everything (--all)")
    check_waiting(left, {}, target)
    features, rows = _encoded(loaded(model), progress(left), say)
    chosen = spread(features, [1.0 - row["confidence"] for row in rows], number) if rows else []
    best = [rows[place] for place in chosen]
    if place:
        target.write(best)
    return best


def spread(features: Floats, weights: list[float], number: int) -> list[int]:
    """At most `number` rows of features (N, F): each has the largest weight times distance to those before it."""
    scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
    weight = np.array(weights, dtype=np.float32)
    score, nearest = weight.copy(), np.full(weight.shape, np.inf, dtype=np.float32)
    chosen: list[int] = []
    while len(chosen) < min(number, len(weights)):
        chosen.append(int(score.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
        score = weight * nearest
        score[chosen] = -1.0
    return chosen


def _encoded(captioner: Captioner, paths: Iterable[str], say: Callable[[str], object]) -> tuple[Floats, list[Row]]:
    """The features (N, F) of the pictures that can be read, and a row for each, with its caption and confidence."""

    def read(path: str) -> tuple[str, NDArray[np.uint8] | None]:
        try:
            return path, captioner.preprocess.read(path, path)
        except ImageError as error:
            say(f"captioner: {one_line(error)}")
        return path, None

    features, rows = [np.empty((0, captioner.feature_size), dtype=np.float32)], list[Any]()
    with ThreadPoolExecutor(available_cpus()) as pool:
        readable = ((path, pixels) for path, pixels in in_order(pool, read, paths, 64) if pixels is not None)
        for batch in in_batches(readable, 32):
            found = captioner.encode_pixels(np.stack([pixels for _, pixels in batch]))
            captions = captioner.caption_features(found, DecodeOptions("greedy"))
            features.append(found)
            for (path, _), caption in zip(batch, captions, strict=True):
                sure = caption.mean_probability if caption.confidence is None else caption.confidence
                rows.append({"path": path, "caption": caption.text, "confidence": sure})
    return np.concatenate(features), rows


def _captioned(path: str, sidecars: Sidecars) -> bool:
    """Whether a person may have written a caption for the picture."""
    places = PLACES if embedded.available() else ("xmp", "text")
    with suppress(DataError, OSError):  # what is damaged says nothing
        row = caption_of(path, places, sidecars)
        return row is not None and row.get("author") != "captioner"
    return False


def _table(rows: Iterable[Row]) -> Iterator[str]:
    yield '"path","caption"\n'
    yield from csv_lines(rows, ("path", "caption"))
