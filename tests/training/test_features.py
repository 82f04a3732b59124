"""The feature cache: by content, by encoder, shared by several processes, and never a damaged record."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch
from conftest import TINY_ENCODER, draw_picture

from captioner.errors import ImageError, TrainingError
from captioner.inference.torch_engine import PictureEncoder
from captioner.network.checkpoint import Checkpoint, load_checkpoint
from captioner.network.encoder import Encoder
from captioner.network.preprocess import Preprocess
from captioner.training.features import FeatureCache, encoder_digest, features_of
from captioner.training.ranks import Ranks

DIGESTS = [bytes([index]) * 32 for index in range(5)]


def held(cache: FeatureCache, pictures: Sequence[bytes], size: int = 7) -> tuple[torch.Tensor, list[int]]:
    """The features that a cache holds, and the places of those that it lacks."""
    features = torch.zeros(len(pictures), 2, size)
    return features, cache.fill(features, pictures)


def test_features_come_back_in_half_precision(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "new folder" / "features.sqlite")
    features = torch.randn(3, 2, 7).half()
    assert held(cache, DIGESTS[:3])[1] == [0, 1, 2]
    cache.add(DIGESTS[:3], features)
    found, missing = held(FeatureCache(cache.file), [DIGESTS[2], DIGESTS[4], DIGESTS[0]])
    assert missing == [1]
    assert torch.equal(found[[0, 2]], features[[2, 0]].float())
    assert not found[1].any()


def test_a_damaged_record_counts_as_missing_and_is_replaced(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features.sqlite")
    features = torch.randn(3, 2, 7).half()
    cache.add(DIGESTS[:3], features)
    data = cache.file.read_bytes()
    record = features[1].numpy().tobytes()
    assert data.count(record) == 1
    cache.file.write_bytes(data.replace(record, bytes([record[0] ^ 1]) + record[1:]))
    assert held(cache, DIGESTS[:3])[1] == [1]
    cache.add(DIGESTS[1:2], features[1:2])
    assert torch.equal(held(cache, DIGESTS[:3])[0], features.float())
    assert held(cache, DIGESTS[:3], size=8)[1] == [0, 1, 2]  # of another size than this encoder's


@pytest.mark.parametrize("damage", ["no database", "cut", "other table"])
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, damage: str) -> None:
    cache = FeatureCache(tmp_path / "features.sqlite")
    if damage == "other table":
        with closing(sqlite3.connect(cache.file)) as database:
            database.execute("CREATE TABLE features (a, b)")
    else:
        cache.add(DIGESTS[:3], torch.randn(3, 2, 5000).half())
        data = cache.file.read_bytes()
        cache.file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"x" * 9999)
    with pytest.raises(TrainingError, match=r"features\.sqlite: .* cannot be used .*delete this file"):
        held(cache, DIGESTS[:3], 5000)
    cache.file.unlink()
    assert held(cache, DIGESTS[:3], 5000)[1] == [0, 1, 2]


def test_a_full_cache_needs_no_permission_to_write(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features.sqlite")
    cache.add(DIGESTS[:1], torch.randn(1, 2, 7).half())
    with closing(sqlite3.connect(cache.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # so that nobody else may write
        assert held(cache, DIGESTS[:1])[1] == []


def _fill(file: Path, first: int) -> None:
    """Add 300 records in small batches, waiting for the other process's between them."""
    for start in range(first, first + 300, 3):
        keys = [index.to_bytes(32, "big") for index in range(start, start + 3)]
        FeatureCache(file).add(keys, torch.tensor(range(start, start + 3)).view(3, 1, 1).expand(3, 2, 40).half())


def test_two_processes_fill_one_cache_at_the_same_time(tmp_path: Path, forkserver: ForkServerContext) -> None:
    cache = FeatureCache(tmp_path / "features.sqlite")
    processes = [forkserver.Process(target=_fill, args=(cache.file, first)) for first in (0, 200, 1000)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    numbers = [*range(500), *range(1000, 1300)]
    features, missing = held(cache, [number.to_bytes(32, "big") for number in numbers], 40)
    assert not missing
    assert torch.equal(features, torch.tensor(numbers).view(-1, 1, 1).expand(-1, 2, 40).half().float())


def _encode(file: Path, checkpoint: Path, paths: list[str], delays: list[float]) -> None:
    """Compute features of pictures as a run does; the encoder waits before every batch."""
    loaded = load_checkpoint(checkpoint)
    encoder = PictureEncoder(loaded.model.encoder, loaded.preprocess)
    encode, waits = encoder.encode_pixels, iter(delays)

    def slow(pixels: torch.Tensor) -> torch.Tensor:
        time.sleep(next(waits, 0.0))
        return encode(pixels)

    encoder.encode_pixels = slow  # type: ignore[method-assign]
    features = features_of(paths, encoder, FeatureCache(file), lambda number: None, Ranks())
    assert torch.allclose(features[:, 0].float(), encode_all(encoder, paths), atol=1e-3, rtol=1e-3)


def encode_all(encoder: PictureEncoder, paths: list[str]) -> torch.Tensor:
    return encoder.encode([Path(path) for path in paths])


@pytest.mark.slow
def test_two_runs_at_once_share_the_cache(
    tiny_checkpoint_file: Path, pictures: list[Path], tmp_path: Path, forkserver: ForkServerContext
) -> None:
    """Both need pictures that the other one is computing, and each goes on when the other has stored them first."""
    paths = [str(path) for path in pictures]
    file = tmp_path / "features.sqlite"
    runs = [
        forkserver.Process(target=_encode, args=(file, tiny_checkpoint_file, part, delays))
        for part, delays in ((paths, [0.5, 0.0]), (paths[::-1], [0.0, 0.7]))
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
        assert run.exitcode == 0


def test_a_cache_belongs_to_one_encoder_one_preprocessing_and_one_precision() -> None:
    torch.manual_seed(0)
    encoder = Encoder(TINY_ENCODER)
    names = {encoder_digest(encoder, Preprocess(size), "float32") for size in (64, 96)}
    assert encoder_digest(encoder, Preprocess(64), "float32") in names
    names.add(encoder_digest(encoder, Preprocess(64), "bfloat16"))
    with torch.no_grad():
        next(encoder.parameters()).view(-1)[0] += 1e-4
    names.add(encoder_digest(encoder, Preprocess(64), "float32"))
    assert len(names) == 4


def test_only_what_is_new_is_encoded_and_a_changed_picture_is_new(
    tiny_checkpoint: Checkpoint, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = PictureEncoder(tiny_checkpoint.model.encoder, tiny_checkpoint.preprocess)
    encoded: list[int] = []
    done: list[int] = []
    plain = captioner.encode_pixels
    monkeypatch.setattr(captioner, "encode_pixels", lambda pixels: encoded.append(len(pixels)) or plain(pixels))

    def features(paths: list[Path]) -> torch.Tensor:
        encoded.clear()
        done.clear()
        cache = FeatureCache(tmp_path / "features.sqlite")
        found = features_of([str(path) for path in paths], captioner, cache, done.append, Ranks())
        assert sum(done) == len(paths)
        return found

    first = features(pictures[:4])
    assert encoded == [4, 4]
    assert torch.allclose(first[:, 0].float(), captioner.encode(pictures[:4]), atol=1e-3, rtol=1e-3)
    assert first.shape == (4, 2, captioner.feature_size)
    assert not torch.equal(first[:, 0], first[:, 1])
    assert torch.equal(features(pictures[:4]), first)
    assert encoded == []
    draw_picture(20).save(pictures[1])
    second = features([*pictures[:4], pictures[0], pictures[1]])
    assert encoded == [1, 1]
    assert torch.equal(second[[0, 2, 3, 4]], first[[0, 2, 3, 0]])
    assert not torch.equal(second[1], first[1])
    assert torch.equal(second[5], second[1])


def test_what_was_encoded_before_a_bad_picture_is_kept(
    tiny_checkpoint: Checkpoint, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.training.features.BATCH_SIZE", 2)
    captioner = PictureEncoder(tiny_checkpoint.model.encoder, tiny_checkpoint.preprocess)
    pictures[5].write_bytes(b"no picture")
    cache = FeatureCache(tmp_path / "features.sqlite")
    with pytest.raises(ImageError, match=r"picture5\.jpg"):
        features_of([str(path) for path in pictures], captioner, cache, lambda n: None, Ranks())
    with closing(sqlite3.connect(cache.file)) as database:
        assert database.execute("SELECT count(*) FROM features").fetchone() == (4,)
