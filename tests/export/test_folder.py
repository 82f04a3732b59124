"""The folder of an exported model."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from conftest import draw_picture
from safetensors.torch import load_file

import captioner
from captioner.errors import CheckpointError, DeviceError, InputError, OptionError, OutputError
from captioner.export import folder as module
from captioner.export.folder import export_model
from captioner.inference.reader import load_reader
from captioner.network.checkpoint import load_checkpoint
from captioner.network.encoder import as_batch, normalise
from captioner.network.header import find_checkpoint
from captioner.network.preprocess import Preprocess
from captioner.options import DecodeOptions
from captioner.vocab import END, START

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

Command: TypeAlias = Callable[..., tuple[int, str, str]]
GRAPHS = ("encoder.onnx", "start.onnx", "step.onnx")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, finder_checkpoint_file: Path) -> Path:
    """A tiny checkpoint with a matcher, in 8 bits."""
    return export_model(finder_checkpoint_file, tmp_path_factory.mktemp("exported") / "new", bits=8)


def index_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "captioner.json").read_text(encoding="utf-8"))
    return content


def greedy(folder: Path, pictures: list[Any]) -> list[list[int]]:
    """Captions as tokens, by onnxruntime alone."""
    encoder, start, step = (onnxruntime.InferenceSession(folder / name) for name in GRAPHS)
    preprocess = Preprocess(**index_of(folder)["header"]["preprocess"])
    pixels = np.stack([preprocess.pixels(picture) for picture in pictures])
    [features] = encoder.run(["features"], {"pixels": pixels})
    h, c = start.run(["h", "c"], {"features": features})
    tokens, captions = np.full(len(pictures), START), [[] for _ in pictures]  # type: ignore[var-annotated]
    for _ in range(8):
        logits, h, c = step.run(["logits", "h_next", "c_next"], {"tokens": tokens, "h": h, "c": c})
        tokens = logits[:, END:].argmax(1) + END
        for caption, token in zip(captions, tokens.tolist(), strict=True):
            caption.append(token)
    return captions


@pytest.mark.slow
class TestExported:
    @pytest.mark.parametrize("bits", [32, 16, 8])
    def test_from_pixels_to_words_it_says_what_torch_says(
        self, tiny_checkpoint_file: Path, tmp_path: Path, bits: int
    ) -> None:
        folder = export_model(tiny_checkpoint_file, tmp_path / "new", bits)
        pictures = [draw_picture(index) for index in range(5)]
        loaded = load_checkpoint(tiny_checkpoint_file)
        with torch.inference_mode():
            pixels = as_batch(loaded.preprocess.pixels(picture) for picture in pictures)
            state = loaded.model.decoder.init_state(loaded.model.encoder(normalise(loaded.preprocess, pixels)))
            tokens, wanted = torch.full((5,), START), []
            for _ in range(8):
                logits, state = loaded.model.decoder.step(tokens, state)
                tokens = logits[:, END:].argmax(1) + END
                wanted.append(tokens)
        found, said = greedy(folder, pictures), torch.stack(wanted, 1).tolist()
        if bits == 32:
            assert found == said
        assert sum(a == b for a, b in zip(found, said, strict=True)) >= 3
        assert len({tuple(caption) for caption in said}) > 1

    def test_the_index_holds_what_the_graphs_do_not(self, exported: Path, finder_checkpoint_file: Path) -> None:
        index, checkpoint = index_of(exported), load_checkpoint(finder_checkpoint_file)
        assert (index["export_version"], index["bits"], index["language"]) == (1, 8, "")
        digest = hashlib.sha256(finder_checkpoint_file.read_bytes()).hexdigest()
        assert index["source"] == {"checkpoint": "finder.safetensors", "sha256": digest}
        header = index["header"]
        assert header["vocabulary"] == list(checkpoint.vocabulary.words)
        assert header["preprocess"]["size"] == 64
        assert header["provenance"] == checkpoint.provenance
        assert header["model"] == asdict(checkpoint.model.config)
        assert index["decoding"] == {**asdict(DecodeOptions()), "evidence": 0.0}
        assert index["rules"] == {"conjunctions": [], "function_words": None}

    def test_digests_are_those_of_the_files_and_there_are_no_others(self, exported: Path) -> None:
        files = index_of(exported)["files"]
        assert {path.name for path in exported.iterdir()} == {*files, "captioner.json"}
        assert {*files} == {*GRAPHS, "matcher.safetensors"}
        for name, digest in files.items():
            assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest

    def test_the_matcher_reads_sentences_as_the_checkpoint_does(
        self, exported: Path, finder_checkpoint_file: Path
    ) -> None:
        found, wanted = (load_reader(path) for path in (exported, finder_checkpoint_file))
        sentences = ["a dog runs", "the red ball"]
        assert (found.sentences(sentences) == wanted.sentences(sentences)).all()
        features = np.random.default_rng(0).random((3, wanted.mean.size), dtype=np.float32)
        assert (found.pictures(features) == wanted.pictures(features)).all()
        assert load_file(exported / "matcher.safetensors")["matcher.projection.weight"].dtype == torch.int8

    def test_a_folder_that_holds_a_model_is_refused(self, exported: Path, finder_checkpoint_file: Path) -> None:
        before = {path: path.read_bytes() for path in exported.iterdir()}
        with pytest.raises(OutputError, match="holds an exported model already: name another folder"):
            export_model(finder_checkpoint_file, exported)
        assert {path: path.read_bytes() for path in exported.iterdir()} == before

    @pytest.mark.parametrize("failing", [0, 1, 2, 3, 4])
    def test_after_a_failure_there_is_no_model_and_one_can_try_again(
        self, finder_checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
    ) -> None:
        """Whichever of the five files cannot be written."""
        monkeypatch.setattr(module, "_graphs", lambda *_: dict.fromkeys(GRAPHS, onnx.ModelProto()))
        write, written = module.write, []

        def fail(path: Path, data: bytes) -> str:
            if len(written) == failing:
                raise OSError(28, "No space left on device", str(path))
            written.append(path.name)
            return write(path, data)

        with monkeypatch.context() as broken:
            broken.setattr(module, "write", fail)
            with pytest.raises(OSError, match="No space"):
                export_model(finder_checkpoint_file, tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {*written}
        assert "captioner.json" not in written
        export_model(finder_checkpoint_file, tmp_path)
        assert len(list(tmp_path.iterdir())) == 5

    def test_the_command_prints_the_folder_and_how_to_use_it(
        self, tiny_checkpoint_file: Path, pictures: list[Path], command: Command, tmp_path: Path
    ) -> None:
        output = tmp_path / "out"
        given = ("--bits", 8, "--images", pictures[0].parent, "--checkpoint", tiny_checkpoint_file)
        status, out, err = command("export", "--output", output, *given)
        assert (status, out) == (0, f"{output}\n")
        assert err == f"captioner: use it with --checkpoint {output}\n"
        assert index_of(output)["bits"] == 8
        assert not (output / "matcher.safetensors").exists(), "it has none"
        names = {node.op_type for node in onnx.load(output / "encoder.onnx").graph.node}
        assert "QuantizeLinear" in names


def test_a_file_is_no_folder(tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("my notes")
    with pytest.raises(OutputError, match="mine: is a file: name a folder"):
        export_model(tiny_checkpoint_file, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "my notes"


@pytest.mark.parametrize(("name", "shown"), [("flickr8k", "./flickr8k"), ("my models/a b", "'my models/a b'")])
def test_the_advice_names_the_folder_so_that_a_shell_and_captioner_understand_it(
    name: str, shown: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "export_model", lambda checkpoint, output, bits, images: output)
    assert command("export", "--output", name) == (0, f"{name}\n", f"captioner: use it with --checkpoint {shown}\n")


def test_the_index_of_the_shipped_checkpoint_tells_its_language_and_the_words_of_its_rules() -> None:
    loaded = load_checkpoint(file := find_checkpoint())
    index = module._index(file, loaded, 32)
    assert index["language"] == "en"
    assert index["decoding"]["evidence"] == loaded.model.config.evidence > 0.0
    words = {name: [loaded.vocabulary.words[token] for token in tokens] for name, tokens in index["rules"].items()}
    assert sorted(words["conjunctions"]) == ["and", "or"]
    assert {"a", "the", "in"} <= set(words["function_words"])
    assert index["header"]["trust"]["min_confidence"] == loaded.trust.min_confidence  # type: ignore[union-attr]


def test_impossible_wishes_are_refused_before_anything_is_written(tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(OptionError, match="bits must be 32, 16 or 8, not 4"):
        export_model(tiny_checkpoint_file, output, 4)
    with pytest.raises(OptionError, match="images are for 8 bits"):
        export_model(tiny_checkpoint_file, output, 16, [draw_picture(0)])
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        export_model(tmp_path / "none.safetensors", output)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(tiny_checkpoint_file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        export_model(damaged, output)
    assert not output.exists()


def test_pictures_that_cannot_be_read_are_told_before_anything_is_written(
    tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jpg: no such file"):
        export_model(tiny_checkpoint_file, tmp_path / "out", 8, [tmp_path / "nowhere.jpg"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_it_says_how_to_install_it(
    tiny_checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # makes importing it fail
    with pytest.raises(DeviceError, match=rf"{package} is not installed: pip install .*\[onnx\]"):
        export_model(tiny_checkpoint_file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_has_a_public_name() -> None:
    assert captioner.export_model is export_model
