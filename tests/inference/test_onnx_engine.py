"""An exported model writes what the checkpoint writes, and says what is wrong with its files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_picture, make_checkpoint
from network.checkpoint_files import with_words

import captioner
from captioner import Caption, DecodeOptions
from captioner.errors import CheckpointError, DeviceError, OptionError
from captioner.inference.torch_engine import captioner_of
from captioner.network.checkpoint import Checkpoint, save_checkpoint
from captioner.network.config import Trust
from captioner.network.header import find_checkpoint, read_header

PICTURES = [draw_picture(index) for index in range(8)]
WAYS = [
    DecodeOptions(num_captions=3, tags=3),
    DecodeOptions("greedy"),
    DecodeOptions("sample", num_captions=3, seed=1),
    DecodeOptions(require="dog"),
]


def trusted() -> Checkpoint:
    """A checkpoint that reads words, knows what its captions are worth, and tells pictures apart."""
    trust = Trust((1.0, -0.1, 2.0, 6.0), (-1.0, -2.0, 3.0, 4.0), (1.0, 0.0), 0.4, 0.6)
    checkpoint = dataclasses.replace(with_words(make_checkpoint()), trust=trust)
    features, decoder = captioner_of(checkpoint).encode(PICTURES), checkpoint.model.decoder
    # Features of random encoders hardly differ from picture to picture.
    decoder.feature_mean.copy_(torch.from_numpy(features.mean(0)))
    decoder.feature_std.copy_(torch.from_numpy(features.std(0).clip(features.std(0).mean() / 10)))
    return checkpoint


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the checkpoint."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, trusted())
    return path


@pytest.fixture(scope="module")
def folder(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported model."""
    return captioner.export_model(file, tmp_path_factory.mktemp("exported") / "tiny")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def same(one: Caption, other: Caption) -> bool:
    """Equal up to rounding."""
    return (
        (one.text, one.tokens, one.unsure, len(one.alternatives))
        == (other.text, other.tokens, other.unsure, len(other.alternatives))
        and one.logprob == pytest.approx(other.logprob, abs=1e-3)
        and one.confidence == pytest.approx(other.confidence, abs=1e-3)
        and one.familiar == pytest.approx(other.familiar, abs=1e-3)
        and [tag.word for tag in one.tags] == [tag.word for tag in other.tags]
        and all(map(same, one.alternatives, other.alternatives))
    )


@pytest.mark.parametrize("options", WAYS, ids=lambda options: f"{options.strategy} {options.require}")
def test_captions_are_those_of_torch(file: Path, folder: Path, options: DecodeOptions) -> None:
    exact, exported = captioner.load(file, precision="float32"), captioner.load(folder)
    expected, found = (model.caption_batch(PICTURES, options) for model in (exact, exported))
    assert all(map(same, found, expected))
    assert len({round(caption.logprob, 3) for caption in found}) >= 3
    streamed = [result.caption for result in exported.caption_files(PICTURES, options, 3)]
    assert all(one and same(one, other) for one, other in zip(streamed, found, strict=True))


def test_sentences_are_scored_ranked_and_drawn_as_by_torch(file: Path, folder: Path) -> None:
    exact, exported = captioner.load(file, precision="float32"), captioner.load(folder)
    for sentence in ("a dog runs", "a zebra"):
        assert same(exported.score(PICTURES[0], sentence), exact.score(PICTURES[0], sentence))
    sentences = ["a dog runs", "the cat sleeps", "two dogs"]
    found = [caption.text for caption in exported.rank(PICTURES[1], sentences)]
    assert found == [caption.text for caption in exact.rank(PICTURES[1], sentences)]
    draw = DecodeOptions("sample", num_captions=4, seed=3)
    assert all(map(same, exported.sample(draw), exact.sample(draw)))
    np.testing.assert_allclose(exported.encode(PICTURES), exact.encode(PICTURES), atol=1e-5)


def test_no_pictures_are_no_captions_and_no_scores(folder: Path) -> None:
    """onnxruntime ends the process where an LSTM gets no rows."""
    model = captioner.load(folder)
    assert model.caption_batch([]) == model.caption_features(model.encode([])) == []
    assert model.score_features(model.encode([]), "a dog") == model.rank_features(model.encode([]), ["a dog"]) == []


def test_it_says_what_it_is(file: Path, folder: Path, copy: Path) -> None:
    model = captioner.load(folder)
    assert (model.engine, model.device, model.precision) == ("onnx", "cpu", "float32")
    assert model.path == folder / "captioner.json" == find_checkpoint(folder)
    assert read_header(find_checkpoint(folder)) == read_header(file)
    assert model.digest() != captioner.load(file).digest()
    assert (model.config, model.provenance) == (captioner.load(file).config, captioner.load(file).provenance)
    content = json.loads((copy / "captioner.json").read_text())
    (copy / "captioner.json").write_text(json.dumps({**content, "bits": 8}))
    small = captioner.load(copy)
    assert small.precision == "int8"
    assert small.digest() != model.digest()


def test_what_needs_torch_is_refused(folder: Path) -> None:
    model = captioner.load(folder)
    with pytest.raises(DeviceError, match=r"cannot show how a caption came about: load the \.safetensors file"):
        model.explain(PICTURES[0])
    with pytest.raises(CheckpointError, match="has no matcher"):
        model.reader()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"device": "cuda"}, DeviceError, "computes on the CPU, not on 'cuda'"),
        ({"precision": "bfloat16"}, OptionError, "was exported in float32, not bfloat16"),
        ({"engine": "torch"}, DeviceError, "computes with onnxruntime: leave the engine"),
        ({"engine": "openvino"}, OptionError, "engine must be one of auto, torch, onnx"),
    ],
)
def test_what_it_cannot_obey_is_refused(
    folder: Path, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        captioner.load(folder, **given)
    assert captioner.load(folder, device="cpu", precision="float32", engine="onnx").engine == "onnx"


def test_a_checkpoint_is_no_exported_model(file: Path) -> None:
    how = r"captioner export --checkpoint .*tiny\.safetensors --output FOLDER"
    with pytest.raises(DeviceError, match=f"is no exported model, which the engine onnx needs: write it with `{how}`"):
        captioner.load(file, engine="onnx")


@pytest.mark.parametrize("name", ["encoder.onnx", "start.onnx", "step.onnx"])
@pytest.mark.parametrize("damage", ["missing", "changed", "of another model"])
def test_a_wrong_file_is_named(copy: Path, name: str, damage: str) -> None:
    if damage == "missing":
        (copy / name).unlink()
        message = f"a file is missing .*{name}"
    elif damage == "changed":
        (copy / name).write_bytes((copy / name).read_bytes()[:-1] + b"x")
        message = f"{name}: is not the file that was exported"
    else:
        (copy / name).write_bytes(b"no ONNX at all")
        content = json.loads((copy / "captioner.json").read_text())
        content["files"][name] = captioner.files.sha256_of(copy / name)
        (copy / "captioner.json").write_text(json.dumps(content))
        message = f"{name}: onnxruntime cannot run it"
    with pytest.raises(CheckpointError, match=message):
        captioner.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"export_version": 2}, "has export_version 2, this program reads 1: export the model anew"),
        ({"header": {}}, "captioner.json: damaged: no format_version"),
        ({"bits": 7}, "damaged: bits or predicted is not what it should be"),
        ({"predicted": ["dog"]}, "damaged: bits or predicted is not what it should be"),
        ({"files": []}, "captioner.json: damaged"),
        ({"files": {"a/encoder.onnx": ""}}, "captioner.json: damaged: files is not what it should be"),
        (b"{", "captioner.json: damaged"),
        (b"[]", "captioner.json: damaged"),
        (b"\xff", "captioner.json: damaged"),
    ],
    ids=str,
)
def test_damaged_content_is_named(copy: Path, change: dict[str, Any] | bytes, message: str) -> None:
    file = copy / "captioner.json"
    file.write_bytes(
        change if isinstance(change, bytes) else json.dumps({**json.loads(file.read_bytes()), **change}).encode()
    )
    with pytest.raises(CheckpointError, match=message):
        captioner.load(copy)


def test_an_impossible_size_of_pictures_is_damage(copy: Path) -> None:
    content = json.loads((copy / "captioner.json").read_text())
    content["header"]["preprocess"]["size"] = 0
    (copy / "captioner.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="damaged: impossible preprocessing"):
        captioner.load(copy)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder.onnx", r"encoder\.onnx: is a part of an exported model: give its folder"),
        ("matcher.safetensors", r"matcher\.safetensors: is a part of an exported model: give its folder"),
        ("nothing/captioner.json", r"nothing/captioner\.json: no such checkpoint"),
    ],
)
def test_what_is_no_model_by_itself_is_told_apart(folder: Path, name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        captioner.load(folder / name)


def test_an_export_that_was_not_finished_is_no_model(copy: Path) -> None:
    (copy / "captioner.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no captioner\.json: its export was not finished"):
        captioner.load(copy)


def test_an_encoder_that_computes_no_numbers_is_refused(folder: Path) -> None:
    model = captioner.load(folder)
    session = model.network._encoder  # type: ignore[attr-defined]

    class Broken:
        def run(self, names: list[str], given: dict[str, Any]) -> list[Any]:
            return [np.full_like(session.run(names, given)[0], np.nan)]

    model.network._encoder = Broken()  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="computes what is not a number"):
        model.caption(PICTURES[0])
