"""Captioning with the index: the same bytes, and no picture encoded twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import captioner
from captioner.bulk.progress import Progress
from captioner.inference.captioner import Captioner
from captioner.inference.torch_engine import PictureEncoder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache for each test."""
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["float32", "bfloat16"])
def model(finder_checkpoint_file: Path, request: pytest.FixtureRequest) -> Captioner:
    """A captioner with a matcher, in both precisions."""
    return captioner.load(finder_checkpoint_file, precision=request.param)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are encoded."""
    sizes, encode = list[int](), PictureEncoder.encode_pixels

    def counting(self: PictureEncoder, pixels: Any) -> Any:
        sizes.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(PictureEncoder, "encode_pixels", counting)
    return sizes


def captions(model: Captioner, folder: Path, output: Path, **given: Any) -> bytes:
    """What a captioning run writes."""
    captioner.caption_files(folder, output, model=model, batch_size=4, **given)
    return output.read_bytes()


def test_captions_are_the_same_bytes_with_and_without_an_index(
    model: Captioner, pictures: list[Path], tmp_path: Path, encoded: list[int]
) -> None:
    folder = pictures[0].parent
    plain = captions(model, folder, tmp_path / "plain.jsonl", index=False)
    assert captions(model, folder, tmp_path / "filling.jsonl") == plain
    assert sum(encoded) == 14
    assert captions(model, folder, tmp_path / "filled.jsonl") == plain
    assert sum(encoded) == 14
    file = tmp_path / "my.sqlite"
    assert captions(model, folder, tmp_path / "elsewhere.jsonl", index=file) == plain
    assert file.exists()


def test_captions_are_the_same_where_some_pictures_were_encoded_with_others(
    model: Captioner, pictures: list[Path], tmp_path: Path, encoded: list[int]
) -> None:
    captioner.open_index(pictures[1:6:2], model=model)
    assert sum(encoded) == 3
    plain = captions(model, pictures[0].parent, tmp_path / "plain.jsonl", index=False)
    assert captions(model, pictures[0].parent, tmp_path / "some.jsonl") == plain
    assert sum(encoded) - 10 == (7 if model.precision == "float32" else 4)


def test_what_was_captioned_is_found_without_encoding_and_the_other_way_round(
    model: Captioner, pictures: list[Path], tmp_path: Path, encoded: list[int]
) -> None:
    folder = pictures[0].parent
    captions(model, folder, tmp_path / "a.csv")
    index = captioner.open_index(folder, model=model)
    assert len(index.find("a dog")) == 7
    assert sum(encoded) == 7


def test_where_the_index_cannot_be_written_captions_are(
    model: Captioner, pictures: list[Path], tmp_path: Path, cache: Path
) -> None:
    plain = captions(model, pictures[0].parent, tmp_path / "plain.jsonl", index=False)
    cache.write_text("in the way")
    said: list[str] = []
    progress = Progress(say=said.append)
    assert captions(model, pictures[0].parent, tmp_path / "a.jsonl", progress=progress) == plain
    assert sum("without the index" in line for line in said) == 1


def test_a_picture_that_changes_gets_its_new_caption(model: Captioner, pictures: list[Path], tmp_path: Path) -> None:
    folder = pictures[0].parent
    captions(model, folder, tmp_path / "a.jsonl")
    stamp = pictures[0].stat()
    pictures[0].write_bytes(pictures[3].read_bytes())
    os.utime(pictures[0], ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    found = captions(model, folder, tmp_path / "b.jsonl")
    assert found == captions(model, folder, tmp_path / "plain.jsonl", index=False)


def test_a_checkpoint_without_a_matcher_leaves_no_index(
    tiny_checkpoint_file: Path, pictures: list[Path], tmp_path: Path, cache: Path
) -> None:
    captions(captioner.load(tiny_checkpoint_file), pictures[0].parent, tmp_path / "a.csv")
    assert not (cache / "index").exists()
