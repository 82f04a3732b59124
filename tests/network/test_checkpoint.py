"""A checkpoint comes back as it was saved; everything else is refused in words that say what is wrong."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_ENCODER, draw_picture
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

import captioner
from captioner.errors import CaptionerError, CheckpointError
from captioner.inference.captioner import Captioner
from captioner.inference.decoding import decode
from captioner.inference.rules import Rules
from captioner.network import checkpoint as checkpoint_module
from captioner.network.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    half_precision,
    is_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from captioner.network.encoder import Encoder, encoder_names
from captioner.network.header import find_checkpoint
from captioner.network.model import CaptionModel, Decoder, ModelConfig
from captioner.network.preprocess import Preprocess
from captioner.network.recurrent import CELLS
from captioner.options import DecodeOptions
from captioner.vocab import Vocabulary

Content = dict[str, Any]
Tensors = dict[str, Tensor]
WEIGHT = "decoder.output.weight"


def read_parts(path: Path) -> tuple[Content, Tensors]:
    """The description and the tensors of a checkpoint file, by safetensors alone."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no dict)
        return json.loads(file.metadata()["captioner"]), tensors


def write_parts(path: Path, content: Content | str, tensors: Tensors) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(save(tensors, metadata={"captioner": text}))
    return path


@pytest.fixture
def changed(tiny_checkpoint_file: Path, tmp_path: Path) -> Callable[[Callable[[Content, Tensors], Any]], Path]:
    """The tiny checkpoint with a change; a text that the change returns takes the place of the description."""

    def make(change: Callable[[Content, Tensors], Any]) -> Path:
        content, tensors = read_parts(tiny_checkpoint_file)
        text = change(content, tensors)
        return write_parts(tmp_path / "changed.safetensors", text if isinstance(text, str) else content, tensors)

    return make


def refusal(path: Path) -> str:
    """Why a file is refused: what comes after its name, in one line."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert isinstance(caught.value, CaptionerError)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400
    return message.removeprefix(f"{path}: ")


def set_to(part: str, *keys: str, value: Any) -> Callable[[Content, Tensors], None]:
    def change(content: Content, _: Tensors) -> None:
        for key in (inner := [part, *keys])[:-1]:
            content = content[key]
        content[inner[-1]] = value

    return change


def without(*keys: str) -> Callable[[Content, Tensors], None]:
    def change(content: Content, _: Tensors) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


class TestRoundTrip:
    def test_the_captions_are_those_of_the_rounded_weights(
        self, tiny_checkpoint: Checkpoint, tiny_checkpoint_file: Path
    ) -> None:
        rounded = copy.deepcopy(tiny_checkpoint)
        rounded.model.load_state_dict(half_precision(tiny_checkpoint.model))
        pictures = [draw_picture(index) for index in range(6)]
        before = Captioner(rounded).caption_batch(pictures)
        assert Captioner(load_checkpoint(tiny_checkpoint_file)).caption_batch(pictures) == before
        assert len({caption.text for caption in before}) > 1

    def test_everything_comes_back(self, tiny_checkpoint: Checkpoint, tiny_checkpoint_file: Path) -> None:
        loaded = load_checkpoint(tiny_checkpoint_file)
        assert loaded.vocabulary == tiny_checkpoint.vocabulary
        assert loaded.preprocess == tiny_checkpoint.preprocess
        assert loaded.provenance == tiny_checkpoint.provenance
        assert loaded.model.config == tiny_checkpoint.model.config
        wanted, state = half_precision(tiny_checkpoint.model), half_precision(loaded.model)
        assert wanted.keys() == state.keys()
        assert all(torch.equal(wanted[name], state[name]) for name in wanted)

    def test_the_model_is_ready_for_use(self, tiny_checkpoint_file: Path) -> None:
        model = load_checkpoint(tiny_checkpoint_file).model
        assert not any(module.training for module in model.modules())
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"cpu"}

    def test_saved_again_it_is_the_same_file(self, tiny_checkpoint_file: Path, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "again", load_checkpoint(tiny_checkpoint_file))
        assert (tmp_path / "again").read_bytes() == tiny_checkpoint_file.read_bytes()

    def test_weights_on_disk_are_half_precision(self, tiny_checkpoint_file: Path) -> None:
        _, tensors = read_parts(tiny_checkpoint_file)
        kinds = {name.rpartition(".")[2]: tensor.dtype for name, tensor in tensors.items()}
        assert kinds.pop("num_batches_tracked") == torch.int64
        assert set(kinds.values()) == {torch.float16}

    def test_weights_of_full_precision_are_read_too(
        self, changed: Callable[..., Path], tiny_checkpoint_file: Path
    ) -> None:
        def widen(_: Content, tensors: Tensors) -> None:
            tensors.update({name: t.float() for name, t in tensors.items() if t.is_floating_point()})

        wide, narrow = load_checkpoint(changed(widen)).model, load_checkpoint(tiny_checkpoint_file).model
        assert all(torch.equal(a, b) for a, b in zip(wide.parameters(), narrow.parameters(), strict=True))

    def test_every_script_of_words_and_provenance(self, tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
        words = (*tiny_checkpoint.vocabulary.words[:-2], "пёс", "犬")
        vocabulary, provenance = Vocabulary(words), {"author": "Zoë 😀", "scores": {"BLEU-4": 19.1}, "none": None}
        save_checkpoint(
            tmp_path / "c", Checkpoint(tiny_checkpoint.model, vocabulary, tiny_checkpoint.preprocess, provenance)
        )
        loaded = load_checkpoint(tmp_path / "c")
        assert loaded.vocabulary == vocabulary
        assert loaded.provenance == provenance

    @pytest.mark.parametrize("encoder", ["regnet_y_400mf", "efficientnet_b0"])
    def test_other_encoders_compute_the_same_afterwards(self, encoder: str, tmp_path: Path) -> None:
        """Weights are loaded into a network that has none: what is not in the file must be made as usual."""
        vocabulary = Vocabulary.build(["a dog"])
        model = CaptionModel.create(ModelConfig(encoder, len(vocabulary), 4, 4))
        save_checkpoint(tmp_path / "c", Checkpoint(model, vocabulary, Preprocess(64)))
        model.load_state_dict(half_precision(model))
        images = torch.randn(1, 3, 64, 64)
        with torch.inference_mode():
            assert torch.equal(load_checkpoint(tmp_path / "c").model.encoder(images), model.encoder(images))

    @pytest.mark.slow
    def test_all_encoders_keep_everything_in_their_state(self) -> None:
        for name in encoder_names():
            if not name.startswith("squeezenet"):  # they have no feature vector
                with checkpoint_module._ShapesOnly():
                    encoder = Encoder(name)
                tensors = {name for name, _ in (*encoder.named_parameters(), *encoder.named_buffers())}
                assert tensors == encoder.state_dict().keys(), name

    @pytest.mark.parametrize(
        ("layers", "tied", "variational", "tokens"),
        [
            (1, False, False, "word"),
            (1, True, True, "character"),
            (2, True, False, "word"),
            (2, False, True, "character"),
        ],
    )
    @pytest.mark.parametrize("cell", CELLS)
    def test_every_kind_of_decoder_writes_the_same_captions_afterwards(
        self,
        cell: str,
        layers: int,
        tied: bool,
        variational: bool,
        tokens: str,
        tiny_checkpoint: Checkpoint,
        tmp_path: Path,
    ) -> None:
        encoder, vocabulary = tiny_checkpoint.model.encoder, Vocabulary.build(["一只狗在草地上跑"], tokens=tokens)
        config = ModelConfig(TINY_ENCODER, len(vocabulary), 8, 6, 0.1, cell, layers, tied, variational)
        torch.manual_seed(0)
        decoder = Decoder(config, encoder.feature_size).eval()
        for weights in decoder.parameters():
            torch.nn.init.normal_(weights)
        model = CaptionModel(config, encoder, decoder)
        save_checkpoint(tmp_path / "c", Checkpoint(model, vocabulary, tiny_checkpoint.preprocess))
        loaded = load_checkpoint(tmp_path / "c")
        assert loaded.model.config == config
        assert loaded.vocabulary == vocabulary
        decoder.load_state_dict({name: tensor.half().float() for name, tensor in decoder.state_dict().items()})
        features = torch.randn(4, encoder.feature_size)
        for options in (DecodeOptions(num_captions=2), DecodeOptions("sample", seed=1)):
            captions = decode(decoder, features, Rules(options))
            assert decode(loaded.model.decoder, features, Rules(options)) == captions
            assert len({best.logprob for best, *_ in captions}) == 4
        save_checkpoint(tmp_path / "again", loaded)
        assert (tmp_path / "again").read_bytes() == (tmp_path / "c").read_bytes()

    def test_it_does_not_change_with_its_file(self, changed: Callable[..., Path]) -> None:
        """safetensors gives views into the file; Windows would not let it be replaced while they live."""
        path = changed(lambda _, tensors: tensors.update({WEIGHT: tensors[WEIGHT].float()}))
        model = load_checkpoint(path).model
        before = copy.deepcopy(model.state_dict())
        with path.open("r+b") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            file.seek(start)
            file.write(bytes(path.stat().st_size - start))
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    def test_loading_leaves_the_global_generator_alone(self, tiny_checkpoint_file: Path) -> None:
        state = torch.get_rng_state()
        load_checkpoint(tiny_checkpoint_file)
        assert torch.equal(torch.get_rng_state(), state)


def as_version_1(content: Content, tensors: Tensors) -> None:
    """What version 1 wrote for the same captioner."""
    content["format_version"] = 1
    del content["tokens"]
    for field in ("cell", "layers", "tie_embeddings", "variational_dropout"):
        del content["model"][field]
    for name in [name for name in tensors if name.startswith("decoder.recurrent.")]:
        tensors[name.replace("decoder.recurrent.0.cell.", "decoder.lstm.")] = tensors.pop(name)


class TestVersion1:
    def test_it_writes_the_same_captions(self, changed: Callable[..., Path], tiny_checkpoint_file: Path) -> None:
        path = changed(as_version_1)
        content, tensors = read_parts(path)
        assert len(content["model"]) == 5
        assert "decoder.lstm.weight_ih_l0" in tensors
        pictures = [draw_picture(index) for index in range(6)]
        expected = Captioner(load_checkpoint(tiny_checkpoint_file)).caption_batch(pictures)
        assert Captioner(load_checkpoint(path)).caption_batch(pictures) == expected

    def test_saved_again_it_is_of_this_version(
        self, changed: Callable[..., Path], tiny_checkpoint_file: Path, tmp_path: Path
    ) -> None:
        save_checkpoint(tmp_path / "again", load_checkpoint(changed(as_version_1)))
        assert (tmp_path / "again").read_bytes() == tiny_checkpoint_file.read_bytes()

    def test_a_file_half_of_each_version_is_refused(self, changed: Callable[..., Path]) -> None:
        def new_names(content: Content, tensors: Tensors) -> None:
            as_version_1(content, tensors)
            content["format_version"] = 2

        assert "tokens is missing" in refusal(changed(new_names))


@pytest.mark.parametrize(("name", "tokens"), [("flickr8k", "word"), ("flickr8k-zh", "character")])
def test_shipped_checkpoints_are_complete(name: str, tokens: str) -> None:
    content, _ = read_parts(find_checkpoint(name))
    assert content["format_version"] == FORMAT_VERSION
    loaded = load_checkpoint(find_checkpoint(name))
    assert loaded.vocabulary.tokens == tokens
    assert {"data", "encoder_weights", "training", "calibration", "validation"} <= loaded.provenance.keys()
    assert Captioner(loaded).caption(draw_picture(0)).finished


class TestSaving:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6], ids=["nan", "inf", "too large"])
    def test_weights_that_half_precision_cannot_hold_leave_the_old_file(
        self, value: float, tiny_checkpoint: Checkpoint, tmp_path: Path
    ) -> None:
        path = tmp_path / "best.safetensors"
        path.write_text("old")
        broken = copy.deepcopy(tiny_checkpoint)
        broken.model.decoder.output.bias.data[3] = value
        with pytest.raises(ValueError, match=r"decoder\.output\.bias are not finite .* diverged"):
            save_checkpoint(path, broken)
        assert path.read_text() == "old"

    def test_a_full_disk_leaves_the_old_file_and_nothing_else(
        self, tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        path = tmp_path / "best.safetensors"
        path.write_text("old")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(path, tiny_checkpoint)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]


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
    def test_another_file_is_refused(self, content: bytes, message: str, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        path.write_bytes(content)
        assert message in refusal(path)

    def test_a_missing_file_a_folder_and_a_pipe(self, tmp_path: Path) -> None:
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / "pipe")
        assert refusal(tmp_path / "missing") == refusal(tmp_path / "pipe") == "no such checkpoint"
        assert refusal(tmp_path) == "is a folder; give the .safetensors file in it"

    def test_every_truncation_is_refused(self, tiny_checkpoint_file: Path, tmp_path: Path) -> None:
        data = tiny_checkpoint_file.read_bytes()
        path = tmp_path / "cut.safetensors"
        for cut in (1, 7, 8, 9, *range(0, len(data), len(data) // 20), len(data) - 1):
            path.write_bytes(data[:cut])
            assert "the file is empty" in refusal(path) or "not a .safetensors file" in refusal(path)

    def test_a_pickle_is_not_unpickled_whatever_its_name(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "it ran",)

        torch.save({"weights": torch.zeros(3), "evil": Evil()}, tmp_path / "weights.safetensors")
        assert "not a .safetensors file" in refusal(tmp_path / "weights.safetensors")
        assert not (tmp_path / "it ran").exists()

    def test_nothing_in_the_package_unpickles(self) -> None:
        """But for tensors alone, in the one place that reads PyTorch's own files."""
        loads = []
        for file in Path(captioner.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    modules = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                    assert not modules & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("eval", "exec", "np.load", "numpy.load"):
                    pytest.fail(f"{file}: {ast.unparse(node)}")
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.jit.load"):
                    loads.append((file.name, {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only")))
        assert loads == [("encoder_weights.py", "True")]


DAMAGE: dict[str, tuple[Callable[[Content, Tensors], Any], str]] = {
    "no JSON": (lambda c, t: "{'a': 1}", "damaged header (Expecting property name"),
    "half a JSON": (lambda c, t: json.dumps(c)[:-50], "damaged header ("),
    "deep JSON": (lambda c, t: "[" * 100_000, "damaged header (maximum recursion"),
    "a number of 5000 digits": (lambda c, t: "9" * 5000, "damaged header (Exceeds the limit"),
    "a list": (lambda c, t: "[1]", "damaged header: no format_version"),
    "no version": (without("format_version"), "no format_version"),
    "version as text": (set_to("format_version", value="1"), "no format_version"),
    "version true": (set_to("format_version", value=True), "no format_version"),
    "version 0": (set_to("format_version", value=0), "format_version 0"),
    "newer version": (set_to("format_version", value=FORMAT_VERSION + 1), "update captioner"),
    **{
        f"no {part}": (without(part), f"{part} is missing or of the wrong type")
        for part in ("model", "tokens", "vocabulary", "preprocess", "provenance")
    },
    **{
        f"{part} of the wrong type": (set_to(part, value="text"), f"{part} is missing or of the wrong type")
        for part in ("model", "vocabulary", "preprocess", "provenance")
    },
    **{
        f"no {field}": (without(part, field), f"'{field}' is missing in {kind}")
        for part, kind, fields in (
            ("model", "ModelConfig", tuple(field.name for field in dataclasses.fields(ModelConfig))),
            ("preprocess", "Preprocess", ("size", "mean", "std")),
        )
        for field in fields
    },
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
    "another cell": (set_to("model", "cell", value="peephole"), "the tensor 'decoder.recurrent.0.cell."),
    "a cell without memory": (set_to("model", "cell", value="gru"), "the tensor 'decoder.c0.bias' does not belong"),
    "no layers": (set_to("model", "layers", value=0), "layers must be at least 1, not 0"),
    "layers true": (set_to("model", "layers", value=True), "layers must be int, not True"),
    "layers as a fraction": (set_to("model", "layers", value=1.0), "layers must be int, not 1.0"),
    "a layer too many": (set_to("model", "layers", value=2), "the tensor 'decoder.recurrent.1.cell."),
    "huge number of layers": (set_to("model", "layers", value=10**9), "layers 100"),
    "tied as a number": (set_to("model", "tie_embeddings", value=1), "tie_embeddings must be bool, not 1"),
    "tied as text": (set_to("model", "tie_embeddings", value="no"), "tie_embeddings must be bool, not 'no'"),
    "tied, but not so": (set_to("model", "tie_embeddings", value=True), "the tensor 'decoder.output"),
    "variational none": (
        set_to("model", "variational_dropout", value=None),
        "variational_dropout must be bool, not None",
    ),
    "unknown tokens": (set_to("tokens", value="syllable"), "tokens must be word or character, not 'syllable'"),
    "tokens of the wrong type": (set_to("tokens", value=1), "tokens is missing or of the wrong type"),
    "two means": (set_to("preprocess", "mean", value=[0.5, 0.5]), "mean must be three numbers"),
    "a mean as text": (set_to("preprocess", "mean", value=[0.5, 0.5, "0.5"]), "mean must be three numbers"),
    "a mean NaN": (set_to("preprocess", "mean", value=[0.5, 0.5, float("nan")]), "mean must be three numbers"),
    "a huge mean": (set_to("preprocess", "mean", value=[0.5, 0.5, 10**400]), "mean must be three numbers"),
    "a mean true": (set_to("preprocess", "mean", value=[0.5, 0.5, True]), "mean must be three numbers"),
    "std 0": (set_to("preprocess", "std", value=[0.5, 0, 0.5]), "impossible preprocessing"),
    "negative std": (set_to("preprocess", "std", value=[0.5, -1, 0.5]), "impossible preprocessing"),
    "image size 0": (set_to("preprocess", "size", value=0), "impossible preprocessing"),
    "huge image size": (set_to("preprocess", "size", value=10**9), "impossible preprocessing"),
    "unknown encoder": (set_to("model", "encoder", value="resnet9000"), "unknown encoder 'resnet9000'"),
    "encoder without feature": (set_to("model", "encoder", value="squeezenet1_0"), "no feature vector"),
    "short vocabulary": (lambda c, t: c["vocabulary"].remove("a"), "17 words for an output layer of 18"),
    "long vocabulary": (lambda c, t: c["vocabulary"].append("zebra"), "19 words for an output layer of 18"),
    "empty vocabulary": (set_to("vocabulary", value=[]), "the vocabulary must begin with <pad> <start>"),
    "word twice": (lambda c, t: c["vocabulary"].__setitem__(6, c["vocabulary"][5]), "twice"),
    "no specials": (lambda c, t: c["vocabulary"].__setitem__(0, "pad"), "the vocabulary must begin with <pad>"),
    "a number as word": (lambda c, t: c["vocabulary"].__setitem__(5, 5), "something that is not text"),
    "half a character": (lambda c, t: c["vocabulary"].__setitem__(5, "\ud83d"), "something that is not text"),
    "a control character": (lambda c, t: c["vocabulary"].__setitem__(5, "\x1b[2J"), "something that is not text"),
    "missing tensor": (lambda c, t: t.pop(WEIGHT), f"the tensor '{WEIGHT}' is missing"),
    "no tensors": (lambda c, t: t.clear(), "is missing"),
    "extra tensor": (lambda c, t: t.update(extra=t[WEIGHT].clone()), "the tensor 'extra' does not belong"),
    "odd tensor name": (lambda c, t: t.update({"\x1b\n": t[WEIGHT].clone()}), r"the tensor '\x1b\n' does not belong"),
    "wrong shape": (
        lambda c, t: t.update({WEIGHT: t[WEIGHT].T.contiguous()}),
        f"{WEIGHT} has shape (24, 18), not (18, 24)",
    ),
    "integer weights": (lambda c, t: t.update({WEIGHT: t[WEIGHT].int()}), f"{WEIGHT} holds I32 values"),
    "double weights": (lambda c, t: t.update({WEIGHT: t[WEIGHT].double()}), f"{WEIGHT} holds F64 values"),
    "NaN": (lambda c, t: t[WEIGHT].__setitem__((3, 5), float("nan")), f"{WEIGHT} holds values that are not numbers"),
    "infinity": (lambda c, t: t[WEIGHT].__setitem__((3, 5), -float("inf")), f"{WEIGHT} holds values that are not"),
    "far too large": (
        lambda c, t: t.update({WEIGHT: t[WEIGHT].float() * 0 + 1e30}),
        f"{WEIGHT} holds values that are not numbers, or far too large",
    ),
    "nothing to divide by": (
        lambda c, t: t["decoder.feature_std"].__setitem__(3, 0.0),
        "feature_std holds zeros or less",
    ),
    "long header": (lambda c, t: c.update(provenance={"x": [{}] * 6_000_000}), "a header of"),
    "another network": (set_to("model", "encoder", value="resnet18"), "the tensor 'encoder.backbone."),
}


class TestDamage:
    @pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE.keys())
    def test_it_is_named(
        self, change: Callable[[Content, Tensors], Any], message: str, changed: Callable[..., Path]
    ) -> None:
        assert message in refusal(changed(change))

    def test_without_damage_the_changed_file_loads(self, changed: Callable[..., Path]) -> None:
        load_checkpoint(changed(lambda content, tensors: None))

    @pytest.mark.skipif(sys.platform == "win32", reason="needs the peak memory of a process")
    @pytest.mark.parametrize(
        "fields",
        [
            {"hidden_size": 65_536_000},
            {"hidden_size": 1 << 20},
            {"embedding_size": 2**31},
            {"hidden_size": 10**30},
            {"encoder": "vit_h_14"},
            {"encoder": "regnet_y_128gf"},
            {"layers": 10**9},
            {"layers": 100, "hidden_size": 1 << 20},
            {"cell": "rnn-relu", "hidden_size": 1 << 20},
            {"cell": "peephole", "hidden_size": 1 << 20, "layers": 100},
            {"tie_embeddings": True, "hidden_size": 1 << 20, "embedding_size": 1 << 20},
        ],
        ids=str,
    )
    def test_sizes_that_lie_take_neither_memory_nor_time(
        self, fields: dict[str, Any], changed: Callable[..., Path]
    ) -> None:
        import resource

        refusal(changed(set_to("model", "encoder", value="resnet18")))  # imports what loading imports
        peak, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        path = changed(lambda content, _: content["model"].update(fields))
        refusal(path)
        unit = 1 if sys.platform == "darwin" else 1024
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * unit < 100_000_000
        assert time.process_time() - started < 5.0

    def test_random_changes_of_the_header_never_raise_anything_else(
        self, tiny_checkpoint_file: Path, tmp_path: Path
    ) -> None:
        data, rng = tiny_checkpoint_file.read_bytes(), random.Random(0)
        header = 8 + int.from_bytes(data[:8], "little")
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(rng.choice([1, 1, 4])):
                at = rng.randrange(header) if rng.random() < 0.8 else rng.randrange(9)
                damaged[at] = rng.choice([0x22, 0x30, 0xFF, damaged[at] ^ 1 << rng.randrange(8)])
            (tmp_path / "x").write_bytes(damaged)
            try:
                load_checkpoint(tmp_path / "x")
            except CheckpointError:
                continue


class TestIsCheckpoint:
    def test_it_tells_safetensors_from_other_files(self, tiny_checkpoint_file: Path, tmp_path: Path) -> None:
        assert is_checkpoint(tiny_checkpoint_file)
        torch.save({}, tmp_path / "a.pth")
        assert not is_checkpoint(tmp_path / "a.pth")

    @pytest.mark.parametrize("content", [b"", b"\x02" + bytes(7), b"12345678{}", b"\x02" + bytes(7) + b"["])
    def test_what_cannot_be_one_is_none(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(content)
        assert not is_checkpoint(tmp_path / "x")


@pytest.mark.skipif(sys.platform == "win32", reason="needs files with holes")
def test_a_file_of_terabytes_that_holds_nothing_is_refused_at_once(tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(tiny_checkpoint_file.read_bytes())
    os.truncate(path, 10**12)
    assert refusal(path) == "is larger than 4 GB: no checkpoint of captioner"
