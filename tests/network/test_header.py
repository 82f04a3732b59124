"""Shipped checkpoints are found by name, files by path, and headers are checked before they are believed."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from safetensors.torch import save

from captioner.cli import main as cli
from captioner.errors import CheckpointError
from captioner.inference.captioner import load
from captioner.network import header as shipped
from captioner.network.checkpoint import Checkpoint, load_checkpoint
from captioner.network.config import ModelConfig
from captioner.network.header import (
    FORMAT_VERSION,
    LANGUAGES,
    find_checkpoint,
    is_checkpoint,
    models,
    read_header,
    shipped_checkpoints,
)
from network.checkpoint_files import Content, Tensors, refusal, set_to, without

FIELDS = [field.name for field in dataclasses.fields(ModelConfig)]
Read: TypeAlias = "Callable[[Path], object]"
both_readers = pytest.mark.parametrize("read", [read_header, load_checkpoint])


@pytest.fixture(params=["package/checkpoints", "checkpoints"], ids=["installed", "clone"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two shipped checkpoints, which hold nothing."""
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "package" / "network" / "header.py"))
    folder: Path = tmp_path / request.param
    folder.mkdir(parents=True)
    for name in ("a-zh-net_v2.safetensors", "flickr8k-net_v2.safetensors", "README.md"):
        (folder / name).touch()
    return folder


def test_short_names_and_the_default(folder: Path) -> None:
    assert list(shipped_checkpoints()) == ["flickr8k", "a-zh"]
    assert find_checkpoint() == find_checkpoint("flickr8k") == folder / "flickr8k-net_v2.safetensors"
    assert find_checkpoint("a-zh") == folder / "a-zh-net_v2.safetensors"


def test_paths_stay_paths(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine.safetensors", "./flickr8k", "runs/mine"):
        assert find_checkpoint(name) == Path(name)
    monkeypatch.chdir(tmp_path)
    Path("mine").touch()
    assert find_checkpoint("mine") == Path("mine")


def test_a_wrong_name_is_told_the_right_ones(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="flickr9k: no such checkpoint: give a file, or one of flickr8k, a-zh"):
        find_checkpoint("flickr9k")


def test_where_none_came_along_the_message_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "package" / "network" / "header.py"))
    with pytest.raises(CheckpointError, match="is not there: give a file with --checkpoint"):
        find_checkpoint()


def test_the_list_names_what_load_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [model.path for model in models()] == [*shipped_checkpoints().values()]
    for line, model in zip(lines, models(), strict=True):
        loaded = load(model.name)
        assert line.split()[0] == model.name
        assert line.endswith(f"  {model.path}")
        assert f"{model.language}, {model.path.stat().st_size / 1e6:.0f} MB, {model.encoder}, " in line
        assert f"validation BLEU-4 {model.scores['bleu_4']:.1f}, CIDEr {model.scores['cider']:.1f}  " in line
        assert model.language == LANGUAGES[model.name]
        assert (model.size, model.tokens) == (model.path.stat().st_size, loaded.vocabulary.tokens)
        assert model.vocabulary_size == len(loaded.vocabulary)
        assert model.scores.items() <= loaded.provenance["validation"].items()
        assert (model.encoder, model.cell) == ("efficientnet_lite2", "lstm")


def test_a_header_is_read_without_torch(tiny_checkpoint_file: Path) -> None:
    program = """
import sys
from pathlib import Path
from captioner.network.header import models, read_header
assert models()
assert read_header(Path(sys.argv[1])).vocabulary
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(tiny_checkpoint_file)], check=True)


def test_the_header_is_that_of_the_checkpoint(tiny_checkpoint: Checkpoint, tiny_checkpoint_file: Path) -> None:
    header = read_header(tiny_checkpoint_file)
    assert header.version == FORMAT_VERSION
    assert header.config == tiny_checkpoint.model.config
    assert header.vocabulary == tiny_checkpoint.vocabulary
    assert header.provenance == tiny_checkpoint.provenance


DAMAGE: dict[str, tuple[Callable[[Content, Tensors], Any], str]] = {
    "no JSON": (lambda c, t: "{'a': 1}", "damaged header: Expecting property name"),
    "half a JSON": (lambda c, t: json.dumps(c)[:-50], "damaged header: "),
    "deep JSON": (lambda c, t: "[" * 100_000, "damaged header: maximum recursion"),
    "a number of 5000 digits": (lambda c, t: "9" * 5000, "damaged header: Exceeds the limit"),
    "a list": (lambda c, t: "[1]", "damaged header: no format_version"),
    "no version": (without("format_version"), "no format_version"),
    "version as text": (set_to("format_version", value="1"), "no format_version"),
    "version true": (set_to("format_version", value=True), "no format_version"),
    "version 0": (set_to("format_version", value=0), "format_version 0"),
    "newer version": (set_to("format_version", value=FORMAT_VERSION + 1), "update captioner"),
    **{
        f"no {part}": (without(part), f"{part} is missing or of the wrong type")
        for part in ("model", "tokens", "vocabulary", "spellings", "preprocess", "provenance")
    },
    **{
        f"{part} of the wrong type": (set_to(part, value="text"), f"{part} is missing or of the wrong type")
        for part in ("model", "vocabulary", "spellings", "preprocess", "provenance")
    },
    **{f"no {field}": (without("model", field), f"'{field}' is missing in ModelConfig") for field in FIELDS},
    "unknown field": (set_to("model", "colour", value=1), "'colour' is unknown in ModelConfig"),
    "long unknown field": (set_to("model", "x" * 10_000, value=1), "is unknown in ModelConfig"),
    "encoder of the wrong type": (set_to("model", "encoder", value=3), "encoder must be str, not 3"),
    "size of the wrong type": (set_to("model", "hidden_size", value=24.0), "hidden_size must be int, not 24.0"),
    "size true": (set_to("model", "embedding_size", value=True), "embedding_size must be int, not True"),
    "size of the wrong type and long": (set_to("model", "hidden_size", value="x" * 10_000), "hidden_size must be int"),
    "dropout of the wrong type": (set_to("model", "dropout", value="0.5"), "dropout must be float, not '0.5'"),
    "dropout 1": (set_to("model", "dropout", value=1), "dropout must be from 0 to below 1"),
    "dropout NaN": (set_to("model", "dropout", value=float("nan")), "dropout must be from 0 to below 1"),
    "dropout of 4000 digits": (set_to("model", "dropout", value=10**4000), "dropout must be from 0 to below 1"),
    "negative size": (set_to("model", "hidden_size", value=-24), "hidden_size must be at least 1"),
    "unknown cell": (
        set_to("model", "cell", value="transformer"),
        "cell must be one of lstm, gru, rnn, rnn-relu, peeph",
    ),
    "cell of the wrong type": (set_to("model", "cell", value=["lstm"]), "cell must be str, not ['lstm']"),
    "no layers": (set_to("model", "layers", value=0), "layers must be at least 1, not 0"),
    "layers true": (set_to("model", "layers", value=True), "layers must be int, not True"),
    "layers as a fraction": (set_to("model", "layers", value=1.0), "layers must be int, not 1.0"),
    "huge number of layers": (set_to("model", "layers", value=10**9), "layers 100"),
    "unknown tokens": (set_to("tokens", value="syllable"), "tokens must be word or character, not 'syllable'"),
    "tokens of the wrong type": (set_to("tokens", value=1), "tokens is missing or of the wrong type"),
    "short vocabulary": (lambda c, t: c["vocabulary"].remove("a"), "17 words for an output layer of 18"),
    "long vocabulary": (lambda c, t: c["vocabulary"].append("zebra"), "19 words for an output layer of 18"),
    "empty vocabulary": (set_to("vocabulary", value=[]), "the vocabulary must begin with <pad> <start>"),
    "word twice": (lambda c, t: c["vocabulary"].__setitem__(6, c["vocabulary"][5]), "twice"),
    "no specials": (lambda c, t: c["vocabulary"].__setitem__(0, "pad"), "the vocabulary must begin with <pad>"),
    "a number as word": (lambda c, t: c["vocabulary"].__setitem__(5, 5), "something that is not text"),
    "half a character": (lambda c, t: c["vocabulary"].__setitem__(5, "\ud83d"), "something that is not text"),
    "a control character": (lambda c, t: c["vocabulary"].__setitem__(5, "\x1b[2J"), "something that is not text"),
    **{
        f"spelling {form!r}": (set_to("spellings", value={"dog": form}), "something that is no spelling of its word")
        for form in ("Cat", "Dogs", "Dog\x1b[2J", "", 3, ["Dog"])
    },
    "long header": (lambda c, t: c.update(provenance={"x": [{}] * 6_000_000}), "a header of"),
    "options that are gone": (
        set_to("model", "tie_embeddings", value=False),
        "'tie_embeddings' is unknown in ModelConfig",
    ),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named(change: Callable[[Content, Tensors], Any], message: str, changed: Callable[..., Path]) -> None:
    path = changed(change)
    assert message in refusal(path, read_header)
    assert refusal(path, read_header) == refusal(path, load_checkpoint)


@pytest.mark.parametrize("value", [True, 1, 0, "no", None])
@pytest.mark.parametrize("name", ["tie_embeddings", "variational_dropout"])
def test_options_that_are_gone_must_be_false_in_version_2(name: str, value: Any, changed: Callable[..., Path]) -> None:
    def change(content: Content, _: Tensors) -> None:
        content["format_version"] = 2
        content["model"] |= {"tie_embeddings": False, "variational_dropout": False, name: value}

    path = changed(change)
    assert (
        refusal(path, load_checkpoint)
        == refusal(path, read_header)
        == (f"damaged header: {name} must be false, not {value!r}: this version of captioner no longer has it")
    )


@both_readers
class TestOtherFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "the file is empty"),
            (b"Once upon a time there was a text file.", "damaged, or not a .safetensors file"),
            (random.Random(0).randbytes(5000), "damaged, or not a .safetensors file"),
            (b"PK\x03\x04" + bytes(100), "damaged, or not a .safetensors file"),
            (b"\x02" + bytes(7) + b"{}", "a safetensors file of another program"),
            (save({"x": torch.zeros(3)}), "a safetensors file of another program"),
            (save({"x": torch.zeros(3)}, {"format": "pt"}), "a safetensors file of another program"),
            (b"\xff" * 7 + b"\x7f" + b"{}", "a header of 9223372036854775807 bytes"),
            (b"\xa0\x86\x01" + bytes(5) + b"[" * 100_000, "damaged, or not a .safetensors file"),
        ],
        ids=["empty", "text", "random", "zip", "nothing", "other", "other with metadata", "huge header", "deep header"],
    )
    def test_another_file_is_refused(self, read: Read, content: bytes, message: str, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        path.write_bytes(content)
        assert message in refusal(path, read)

    def test_a_missing_file_a_folder_and_a_pipe(self, read: Read, tmp_path: Path) -> None:
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / "pipe")
        assert refusal(tmp_path / "missing", read) == refusal(tmp_path / "pipe", read) == "no such checkpoint"
        assert refusal(tmp_path, read) == "is a folder; give the .safetensors file in it"

    def test_every_truncation_is_refused(self, read: Read, tiny_checkpoint_file: Path, tmp_path: Path) -> None:
        data = tiny_checkpoint_file.read_bytes()
        path = tmp_path / "cut.safetensors"
        for cut in (1, 7, 8, 9, *range(0, len(data), len(data) // 20), len(data) - 1):
            path.write_bytes(data[:cut])
            assert "the file is empty" in refusal(path, read) or "not a .safetensors file" in refusal(path, read)


class TestIsCheckpoint:
    def test_it_tells_safetensors_from_other_files(self, tiny_checkpoint_file: Path, tmp_path: Path) -> None:
        assert is_checkpoint(tiny_checkpoint_file)
        torch.save({}, tmp_path / "a.pth")
        assert not is_checkpoint(tmp_path / "a.pth")

    @pytest.mark.parametrize("content", [b"", b"\x02" + bytes(7), b"12345678{}", b"\x02" + bytes(7) + b"["])
    def test_what_cannot_be_one_is_none(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(content)
        assert not is_checkpoint(tmp_path / "x")


@both_readers
@pytest.mark.skipif(sys.platform == "win32", reason="needs files with holes")
def test_a_file_of_terabytes_that_holds_nothing_is_refused_at_once(
    read: Read, tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(tiny_checkpoint_file.read_bytes())
    os.truncate(path, 10**12)
    assert refusal(path, read) == "is larger than 4 GB: no checkpoint of captioner"
