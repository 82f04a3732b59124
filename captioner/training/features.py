"""Features of training pictures and of their mirror images, computed once and kept on disk.

The cache folder holds one SQLite file, `features-*.sqlite`, for each encoder, preprocessing and precision. A picture is
known by the digest of its file's content, so a changed picture counts as a new one. Several runs may use a file at the
same time. All files in the folder may be deleted at any time; earlier versions left `features-*.bin`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captioner.errors import TrainingError
from captioner.files import sha256_of
from captioner.inference.parallel import BATCH_SIZE, in_batches, in_order
from captioner.inference.torch_engine import PictureEncoder
from captioner.machine import available_cpus
from captioner.network.encoder import Encoder, as_batch
from captioner.network.preprocess import Preprocess
from captioner.pictures.load import load_image
from captioner.training.ranks import Ranks

_VERSION = 4  # of the files, and of the way in which features are computed
_PATIENCE = 300.0  # seconds that a run waits while another one writes
_TABLE = "CREATE TABLE IF NOT EXISTS features (picture BLOB PRIMARY KEY, features BLOB NOT NULL, crc INTEGER NOT NULL)"


def encoder_digest(encoder: Encoder, preprocess: Preprocess, precision: str) -> str:
    """A digest of all that features depend on except the picture: weights, preprocessing and precision."""
    how = [_VERSION, dataclasses.asdict(preprocess), precision]
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """Features in a SQLite file, by the digest of a picture's content.

    Every method raises TrainingError when the file is damaged, full or not writable.
    """

    file: Path

    def fill(self, features: Tensor, pictures: Sequence[bytes]) -> list[int]:
        """Write the features of `pictures`, (2, F) each, into `features`, (N, 2, F), as far as they are there.

        Returns the places of the others. A record that is damaged counts as missing.
        """
        missing, rows = [], features.numpy()  # in the same memory, and faster to reach row by row
        size = 2 * rows[:1].size
        with self._open() as database:
            for place, picture in enumerate(pictures):
                row = database.execute("SELECT features, crc FROM features WHERE picture = ?", (picture,)).fetchone()
                if row and len(row[0]) == size and row[1] == zlib.crc32(row[0], zlib.crc32(picture)):
                    rows[place] = np.frombuffer(row[0], np.float16).reshape(rows.shape[1:])
                else:
                    missing.append(place)
        return missing

    def add(self, pictures: Iterable[bytes], features: Tensor) -> None:
        """Store features (N, 2, F) float16 of pictures: all of them, or none when the process is killed."""
        rows = zip(pictures, (row.cpu().numpy().tobytes() for row in features), strict=True)
        records = [(picture, row, zlib.crc32(row, zlib.crc32(picture))) for picture, row in rows]
        with self._open() as database:
            database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", records)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection and a transaction. Locks and journal are SQLite's defaults, which work on network disks, too."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=_PATIENCE)) as database, database:
                database.execute("PRAGMA page_size = 16384")  # several records fit in a page
                # Waiting for the disk after every batch would be slow. What a power failure damages is noticed by its
                # check sum, and computed again.
                database.execute("PRAGMA synchronous = OFF")
                database.execute(_TABLE)
                yield database
        except sqlite3.Error as error:
            raise TrainingError(
                f"{self.file}: the cache of features cannot be used ({error}): delete this file, and it is made anew, "
                "or choose another folder with the environment variable CAPTIONER_CACHE"
            ) from error


def features_of(
    paths: Sequence[str], encoder: PictureEncoder, cache: FeatureCache, progress: Callable[[int], object], ranks: Ranks
) -> Tensor:
    """Features of pictures and of their mirror images, (N, 2, F) float16, from the cache as far as they are there.

    Half precision is far finer than dropout. Ranks share the work, and the first one has
    the cache. `progress` is called with the number of further pictures done.
    Raises ImageError for a picture that cannot be read, OSError for a file, TrainingError for a cache.
    """
    features = torch.empty(len(paths), 2, encoder.feature_size, dtype=torch.float16)
    with ThreadPoolExecutor(available_cpus()) as pool:
        mine = [Path(paths[place]) for place in ranks.share(len(paths)).tolist()]
        digests = ranks.gather_texts(list(pool.map(sha256_of, mine)), len(paths))
        pictures = [bytes.fromhex(digest) for digest in digests]
        is_missing = torch.zeros(len(paths), dtype=torch.uint8)
        if ranks.first:
            is_missing[cache.fill(features, pictures)] = 1
        ranks.same([is_missing, features])
        copies = defaultdict(list)  # places of the same picture, which is computed once
        for place in is_missing.nonzero().flatten().tolist():
            copies[pictures[place]].append(place)
        progress(len(paths) - len(copies))

        def read(picture: bytes) -> NDArray[np.uint8]:
            return encoder.preprocess.pixels(load_image(paths[copies[picture][0]]))

        rounds = list(in_batches(copies, BATCH_SIZE * ranks.size))
        shares = [batch[ranks.rank :: ranks.size] for batch in rounds]
        ahead = in_order(pool, read, chain.from_iterable(shares), 3 * BATCH_SIZE)
        for whole, share in zip(rounds, shares, strict=True):
            computed = torch.zeros(0, 2, encoder.feature_size)
            if share:
                pixels = as_batch(list(islice(ahead, len(share))))
                computed = torch.stack([encoder.encode_pixels(p) for p in (pixels, pixels.flip(-1))], 1)
            computed = ranks.gather(computed.half(), len(whole))
            if ranks.first:
                cache.add(whole, computed)
            for picture, row in zip(whole, computed, strict=True):
                features[copies[picture]] = row
            progress(len(whole))
    return features
