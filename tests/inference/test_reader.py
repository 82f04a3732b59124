"""The reader in NumPy computes what the matcher in torch computes, without torch, and refuses damaged weights."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_checkpoint
from network.checkpoint_files import read_parts, refusal, with_matcher, write_parts

from captioner.errors import CheckpointError
from captioner.inference.reader import load_reader
from captioner.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from captioner.training.captions import CaptionTokens, sentences_of

TEXTS = ["a dog runs on the grass", "Cat!", "the man sits in the snow in the snow", "zebra"]


@pytest.fixture(scope="module")
def checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matcher") / "matcher.safetensors"
    save_checkpoint(path, with_matcher(make_checkpoint()))
    return path


def test_sentences_are_those_of_the_matcher(checkpoint_file: Path) -> None:
    checkpoint, reader = load_checkpoint(checkpoint_file), load_reader(checkpoint_file)
    tokens = CaptionTokens.of([TEXTS], checkpoint.vocabulary).batch(torch.arange(len(TEXTS)))
    assert checkpoint.model.matcher is not None
    with torch.inference_mode():
        wanted = checkpoint.model.matcher.sentences(sentences_of(tokens)).numpy()
    found = reader.sentences(TEXTS)
    assert found.shape == (4, reader.size) == (4, 8)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_pictures_are_those_of_the_matcher(checkpoint_file: Path) -> None:
    checkpoint, reader = load_checkpoint(checkpoint_file), load_reader(checkpoint_file)
    features = torch.rand(5, checkpoint.model.encoder.feature_size)
    assert checkpoint.model.matcher is not None
    with torch.inference_mode():
        wanted = checkpoint.model.matcher.pictures(checkpoint.model.decoder.standardised(features)).numpy()
    np.testing.assert_allclose(reader.pictures(features.numpy()), wanted, atol=1e-5)


def test_alike_are_features_as_the_matcher_sees_them_whatever_their_length(checkpoint_file: Path) -> None:
    reader = load_reader(checkpoint_file)
    away = np.random.default_rng(0).standard_normal((3, len(reader.mean)), np.float32)
    found = reader.alike(reader.mean + reader.std * away * [[1], [2], [3]])
    np.testing.assert_allclose(found, away / np.linalg.norm(away, axis=1, keepdims=True), atol=1e-5)
    assert not reader.alike(reader.mean[None]).any()  # of which no direction is known


def test_unknown_words_are_named_once(checkpoint_file: Path) -> None:
    reader = load_reader(checkpoint_file)
    assert reader.unknown("A zebra and a Zebra on the grass") == ("zebra", "and")
    left_out, without = reader.sentences(["a zebra runs on okapi grass", "a runs on grass"])
    np.testing.assert_array_equal(left_out, without)
    assert reader.sentences([""]).shape == (1, 8)  # nothing is read as one unknown word
    assert reader.sentences([]).shape == (0, 8)


def test_torch_is_not_needed(checkpoint_file: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from captioner.inference.reader import load_reader\n"
        f"print(load_reader({str(checkpoint_file)!r}).sentences(['a dog']).shape)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 8)\n"


def test_a_checkpoint_without_a_matcher_says_how_to_get_one(tiny_checkpoint_file: Path) -> None:
    assert "has no matcher" in refusal(tiny_checkpoint_file, load_reader)
    assert "captioner train --init" in refusal(tiny_checkpoint_file, load_reader)


@pytest.mark.parametrize("name", ["projection.weight", "sentences.backwards.cell.bias_hh_l0", "sentences.output.bias"])
def test_damaged_weights_are_refused(checkpoint_file: Path, tmp_path: Path, name: str) -> None:
    content, tensors = read_parts(checkpoint_file)
    name = f"matcher.{name}"
    for number, wrong in enumerate((None, tensors[name][:-1], tensors[name].long(), tensors[name].half() / 0)):
        changed = {**tensors, name: wrong} if wrong is not None else {n: t for n, t in tensors.items() if n != name}
        path = write_parts(tmp_path / f"{number}.safetensors", content, changed)
        for read in (load_reader, load_checkpoint):
            message = refusal(path, read)
            assert name in message, message


def test_a_matcher_does_not_change_captions(checkpoint_file: Path, tiny_checkpoint: Checkpoint) -> None:
    kept, plain = load_checkpoint(checkpoint_file), copy.deepcopy(tiny_checkpoint)
    of_decoder = plain.model.decoder.state_dict()
    assert kept.model.decoder.state_dict().keys() == of_decoder.keys()
    assert dataclasses.replace(kept.model.config, match_size=0) == plain.model.config


def test_a_matcher_is_not_asked_of_older_files(tmp_path: Path, tiny_checkpoint_file: Path) -> None:
    content, tensors = read_parts(tiny_checkpoint_file)
    del content["model"]["match_size"]
    content["format_version"] = 4
    path = write_parts(tmp_path / "old.safetensors", content, tensors)
    assert load_checkpoint(path).model.matcher is None
    with pytest.raises(CheckpointError, match="has no matcher"):
        load_reader(path)
