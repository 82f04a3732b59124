"""The feature cache: by content, by encoder, and never a damaged record."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY_ENCODER, draw_picture

from captioner.errors import ImageError
from captioner.inference.captioner import PictureEncoder
from captioner.network.checkpoint import Checkpoint
from captioner.network.encoder import Encoder
from captioner.network.preprocess import Preprocess
from captioner.training.features import FeatureCache, cache_file, cache_folder, features_of
from captioner.training.ranks import Ranks

DIGESTS = [bytes([index]) * 32 for index in range(5)]


def test_features_come_back_in_half_precision(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "new folder" / "features.bin", 7)
    features = torch.randn(3, 2, 7)
    assert cache.missing(DIGESTS[:3]) == [0, 1, 2]
    cache.append(DIGESTS[:3], features)
    again = FeatureCache(cache.file, 7)
    assert again.missing([DIGESTS[1], DIGESTS[4], DIGESTS[4], DIGESTS[0]]) == [1]
    assert torch.equal(again.get([DIGESTS[2], DIGESTS[0]]), features[[2, 0]].half().float())
    with pytest.raises(KeyError):
        again.get([DIGESTS[4]])


def test_a_damaged_or_cut_record_counts_as_missing(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features.bin", 7)
    features = torch.randn(4, 2, 7)
    cache.append(DIGESTS[:3], features[:3])
    data = bytearray(cache.file.read_bytes())
    record = len(data) // 3
    data[record + 40] ^= 1
    cache.file.write_bytes(data[:-5])
    damaged = FeatureCache(cache.file, 7)
    assert damaged.missing(DIGESTS[:3]) == [1, 2]
    damaged.append([DIGESTS[3]], features[3:])  # what comes after stands where it belongs
    damaged.reload()
    assert torch.equal(damaged.get([DIGESTS[0], DIGESTS[3]]), features[[0, 3]].half().float())


def test_a_cache_belongs_to_one_encoder_one_preprocessing_and_one_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder(TINY_ENCODER)
    names = {cache_file(encoder, Preprocess(size), "float32", tmp_path) for size in (64, 96)}
    assert cache_file(encoder, Preprocess(64), "float32", tmp_path) in names
    names.add(cache_file(encoder, Preprocess(64), "bfloat16", tmp_path))
    with torch.no_grad():
        next(encoder.parameters()).view(-1)[0] += 1e-4
    names.add(cache_file(encoder, Preprocess(64), "float32", tmp_path))
    assert len(names) == 4


def test_only_what_is_new_is_encoded_and_a_changed_picture_is_new(
    tiny_checkpoint: Checkpoint, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = PictureEncoder(tiny_checkpoint.model.encoder, tiny_checkpoint.preprocess)
    encoded: list[int] = []
    plain = encoder.encode_pixels
    monkeypatch.setattr(encoder, "encode_pixels", lambda pixels: encoded.append(len(pixels)) or plain(pixels))

    def features(paths: list[Path]) -> torch.Tensor:
        encoded.clear()
        cache = FeatureCache(tmp_path / "features.bin", encoder.feature_size)
        return features_of([str(path) for path in paths], encoder, cache, lambda number: None, Ranks())

    first = features(pictures[:4])
    assert encoded == [4, 4]
    assert torch.allclose(first[:, 0], encoder.encode(pictures[:4]), atol=1e-3, rtol=1e-3)
    mirrored = [draw_picture(index).transpose(0) for index in range(4)]
    assert first.shape == (4, 2, encoder.feature_size)
    assert not torch.equal(first[:, 0], first[:, 1])
    del mirrored
    assert torch.equal(features(pictures[:4]), first)
    assert encoded == []
    draw_picture(20).save(pictures[1])
    second = features([*pictures[:4], pictures[0]])
    assert encoded == [1, 1]
    assert torch.equal(second[[0, 2, 3, 4]], first[[0, 2, 3, 0]])
    assert not torch.equal(second[1], first[1])


def test_what_was_encoded_before_a_bad_picture_is_kept(
    tiny_checkpoint: Checkpoint, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.training.features.BATCH_SIZE", 2)
    encoder = PictureEncoder(tiny_checkpoint.model.encoder, tiny_checkpoint.preprocess)
    pictures[5].write_bytes(b"no picture")
    cache = FeatureCache(tmp_path / "features.bin", encoder.feature_size)
    with pytest.raises(ImageError, match=r"picture5\.jpg"):
        features_of([str(path) for path in pictures], encoder, cache, lambda n: None, Ranks())
    assert len(FeatureCache(cache.file, encoder.feature_size)._rows) == 4


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CAPTIONER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "captioner"
