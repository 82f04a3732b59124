"""Features of every picture and of its mirror image, computed once and kept on disk.

A cache file belongs to one encoder and one way of preprocessing: its name is a digest of both. It is a row of
records of one size, each with the digest of a picture file's content, so that a changed picture is another picture;
a check sum tells a whole record from one that a full disk or a kill cut short.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captioner.files import sha256_of
from captioner.inference.captioner import BATCH_SIZE, PictureEncoder
from captioner.inference.parallel import in_batches, in_order
from captioner.machine import available_cpus
from captioner.network.encoder import Encoder
from captioner.network.preprocess import Preprocess
from captioner.pictures.load import load_image
from captioner.training.ranks import Ranks

FORMAT = 2  # of the records, and of the way features are computed


def cache_folder() -> Path:
    """Where features are kept: $CAPTIONER_CACHE, or `captioner` in the user's folder for caches."""
    if given := os.environ.get("CAPTIONER_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "captioner"


def cache_file(encoder: Encoder, preprocess: Preprocess, precision: str, folder: Path) -> Path:
    """The cache of an encoder with exactly these weights, of this preprocessing, and of one precision."""
    how = [FORMAT, dataclasses.asdict(preprocess), precision]
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return folder / f"features-{digest.hexdigest()[:24]}.bin"


class FeatureCache:
    """Features by the digest of a picture's content, in a file that only ever grows."""

    def __init__(self, file: Path, feature_size: int) -> None:
        self.file = file
        # Half precision: the features are standardised before use, and dropout is a thousand times coarser.
        self._record = np.dtype([("picture", "V32"), ("features", "<f2", (2, feature_size)), ("crc", "<u4")])
        self._rows: dict[bytes, int] = {}
        self._records = np.empty(0, self._record)
        self.reload()

    def reload(self) -> None:
        """Read what the file holds; records that are damaged count as not there."""
        size = self.file.stat().st_size // self._record.itemsize if self.file.is_file() else 0
        if not size:
            return
        self._records = np.memmap(self.file, self._record, "r", shape=(size,))
        for row in range(len(self._rows), size):
            record = self._records[row]
            if _crc(record) == record["crc"]:
                self._rows[record["picture"].tobytes()] = row

    def missing(self, pictures: Sequence[bytes]) -> list[int]:
        """The places in `pictures`, digests, that have no features yet; each digest once."""
        places = {picture: place for place, picture in reversed(list(enumerate(pictures)))}
        return sorted(place for picture, place in places.items() if picture not in self._rows)

    def get(self, pictures: Sequence[bytes]) -> Tensor:
        """Features of pictures and of their mirror images, (N, 2, F) float32. Raises KeyError for a missing one."""
        rows = [self._rows[picture] for picture in pictures]
        return torch.from_numpy(self._records["features"][rows].astype(np.float32))

    def append(self, pictures: Sequence[bytes], features: Tensor) -> None:
        """Store features (N, 2, F) of pictures. Raises OSError."""
        records = np.zeros(len(pictures), self._record)
        records["features"] = features.cpu().numpy()
        for record, picture in zip(records, pictures, strict=True):
            record["picture"] = np.void(picture)
            record["crc"] = _crc(record)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as file:
            # What an interrupted write left must not shift the records that follow.
            file.truncate(file.tell() - file.tell() % self._record.itemsize)
            file.write(records.tobytes())


def _crc(record: np.void) -> int:
    return zlib.crc32(record["picture"].tobytes() + record["features"].tobytes())


def features_of(
    paths: Sequence[str],
    encoder: PictureEncoder,
    cache: FeatureCache,
    progress: Callable[[int], object],
    ranks: Ranks,
) -> Tensor:
    """Features of pictures and of their mirror images, (N, 2, F) float32, from the cache where they are there.

    Ranks divide the pictures among themselves; the cache is the first one's. `progress` is told the number of further
    pictures done. Raises ImageError for a picture that cannot be read, OSError when it cannot be read or the cache
    cannot be written.
    """
    with ThreadPoolExecutor(available_cpus()) as pool:
        mine = [Path(paths[place]) for place in ranks.share(len(paths)).tolist()]
        digests = b"".join(bytes.fromhex(digest) for digest in pool.map(sha256_of, mine))
        rows = torch.from_numpy(np.frombuffer(digests, np.uint8).reshape(len(mine), 32).copy())
        pictures = [row.tobytes() for row in ranks.gather(rows, len(paths)).numpy()]
        is_missing = torch.zeros(len(paths), dtype=torch.uint8)
        is_missing[cache.missing(pictures)] = 1
        ranks.same([is_missing])
        missing = is_missing.nonzero().flatten().tolist()
        progress(len(paths) - len(missing))

        def read(place: int) -> Tensor:
            return encoder.preprocess.pixels(load_image(paths[place]))

        rounds = list(in_batches(missing, BATCH_SIZE * ranks.size))
        shares = [part[ranks.rank :: ranks.size] for part in rounds]
        ahead = in_order(pool, read, chain.from_iterable(shares), 3 * BATCH_SIZE)
        for whole, share in zip(rounds, shares, strict=True):
            features = torch.zeros(0, 2, encoder.feature_size)
            if share:
                pixels = torch.stack(list(islice(ahead, len(share))))
                features = torch.stack([encoder.encode_pixels(p) for p in (pixels, pixels.flip(-1))], 1)
            features = ranks.gather(features, len(whole))
            if ranks.first:
                cache.append([pictures[place] for place in whole], features)
            progress(len(whole))
    return _from_first(cache, pictures, encoder.feature_size, ranks)


def _from_first(cache: FeatureCache, pictures: Sequence[bytes], feature_size: int, ranks: Ranks) -> Tensor:
    """What the first rank's cache holds of pictures, (N, 2, F), on all of them."""
    if ranks.first:
        cache.reload()
        features = cache.get(pictures)
    else:
        features = torch.empty(len(pictures), 2, feature_size, dtype=torch.float32)
    ranks.same([features])
    return features
