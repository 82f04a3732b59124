"""Features from the index of pictures: none is encoded twice, by whatever command."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.bulk.index import Floats, IndexFile, index_folder
from captioner.bulk.moves import Digests, File, stamp_of
from captioner.errors import CheckpointError, OutputError
from captioner.files import AnyPath
from captioner.inference.reader import load_reader

if TYPE_CHECKING:  # they import torch
    from captioner.inference.captioner import Captioner
    from captioner.inference.store import Keep, Named


_PIXELS = "2"  # the version of the way in which pictures become pixels


def model_of(captioner: Captioner) -> str:
    """All that features depend on except the picture."""
    parts = captioner.digest(), captioner.precision, captioner.engine, _PIXELS, captioner.device.replace("cpu", "")
    return " ".join(filter(None, parts))


def is_for(model: str, digest: str, precision: str, engine: str) -> bool:
    """Whether an index is for a checkpoint, named by its digest, in this precision and by this engine, or "auto"."""
    of, *made = model.split()
    if of != digest or made[2:3] != [_PIXELS]:
        return False
    return precision in ("auto", made[0]) and engine in ("auto", made[1])


def file_of(model: str) -> Path:
    """Where the index of a model is, unless a person says otherwise."""
    digest, *others = model.split()
    return index_folder() / ("-".join([digest[:16], *(other[:16] for other in others)]) + ".sqlite")


def store_of(
    captioner: Captioner, file: AnyPath | bool, digests: Digests | None, say: Callable[[str], object]
) -> Reuse | None:
    """The features that an index has for a model: in `file`, or, for True, in that of the cache.

    None where there can be no index: for False, for a model without a file, and, unless a person named an index, for a
    checkpoint that finds no pictures. Those with a digest are looked up, and kept, in `digests`.
    """
    if file is False or not captioner.path:
        return None
    try:
        reader = load_reader(captioner.path)
    except CheckpointError:
        if file is True:
            return None
        raise
    exact, model = captioner.engine == "torch" and captioner.precision == "float32", model_of(captioner)
    index = IndexFile(file_of(model) if file is True else Path(file), model, reader, say)
    return Reuse(index, exact, digests, say)


class Reuse:
    """The store of features for `inference.store`. Where the index cannot be used, it says so once and does without.

    With torch in float32, the last digits of features depend on how many pictures are encoded together (`exact`).
    Features are then known only for whole batches of the same size, so that captions do not depend on what was encoded
    before.
    """

    def __init__(self, index: IndexFile, exact: bool, digests: Digests | None, say: Callable[[str], object]) -> None:
        self.index, self._exact, self._digests, self._say = index, exact, digests, say
        self.problem: Exception | None = None

    def look_up(self, pictures: Sequence[Named]) -> tuple[Sequence[Floats | None], Keep]:
        """The features (F,) of each picture of a batch, None where they are not known, and what keeps new ones."""
        files = list[File]()
        known: list[Floats | None] = [None] * len(pictures)

        def keep(places: Sequence[int], features: Floats) -> None:
            new = [files[place] for place in places] if files else []
            now = [stamp_of(file.path) if file.stamp else None for file in new]
            same = [number for number, file in enumerate(new) if file.digest and file.stamp == now[number]]
            if same:
                batch = len(places) if self._exact else 0
                self._try(lambda: self.index.add([new[number] for number in same], features[same], batch))

        def look() -> None:
            paths = {name: os.fspath(source) for name, source in pictures if isinstance(source, str | os.PathLike)}
            unchanged = self.index.known(paths.values())
            digests = self._digests or Digests()
            digests.know(unchanged.values())
            for name, source in pictures:
                data = hashlib.sha256(source).digest() if isinstance(source, bytes) else b""
                files.append(digests.file(paths[name]) if name in paths else File(name, None, data))
            found = self.index.features([file.digest for file in files], len(pictures) if self._exact else 0)
            if not self._exact or all(row is not None for row in found):
                known[:] = found
            if new := [
                file for file, row in zip(files, found, strict=True) if row is not None and file.path not in unchanged
            ]:
                self.index.remember(new)  # a copy, or a picture that was moved

        self._try(look)
        return known, keep

    def _try(self, work: Callable[[], None]) -> None:
        try:
            if not self.problem:
                work()
        except (OutputError, OSError) as error:
            self.problem = error
            self._say(f"captioner: note: goes on without the index of pictures: {error}")
