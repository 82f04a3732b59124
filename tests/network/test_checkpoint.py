"""A checkpoint comes back as it was saved; everything else is refused in words that say what is wrong."""

from __future__ import annotations

import copy
import dataclasses
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
from inference.decoders import decode
from memory import forget_peak, peak_memory

from captioner.errors import CheckpointError
from captioner.inference.rules import Rules
from captioner.inference.torch_engine import captioner_of
from captioner.network import checkpoint as checkpoint_module
from captioner.network.checkpoint import Checkpoint, load_checkpoint, rounded, save_checkpoint
from captioner.network.encoder import Encoder, encoder_names
from captioner.network.header import FORMAT_VERSION, find_checkpoint, read_header
from captioner.network.model import CaptionModel, Decoder, ModelConfig
from captioner.network.preprocess import Preprocess
from captioner.options import CELLS, DecodeOptions
from captioner.vocab import Vocabulary
from network.checkpoint_files import WEIGHT, Content, Tensors, read_parts, refusal, set_to, without


class TestRoundTrip:
    def test_the_captions_are_those_of_the_rounded_weights(
        self, tiny_checkpoint: Checkpoint, tiny_checkpoint_file: Path
    ) -> None:
        stored = copy.deepcopy(tiny_checkpoint)
        stored.model.load_state_dict(rounded(tiny_checkpoint.model))
        pictures = [draw_picture(index) for index in range(6)]
        before = captioner_of(stored).caption_batch(pictures)
        assert captioner_of(load_checkpoint(tiny_checkpoint_file)).caption_batch(pictures) == before
        assert len({caption.text for caption in before}) > 1

    def test_everything_comes_back(self, tiny_checkpoint: Checkpoint, tiny_checkpoint_file: Path) -> None:
        loaded = load_checkpoint(tiny_checkpoint_file)
        assert loaded.vocabulary == tiny_checkpoint.vocabulary
        assert loaded.preprocess == tiny_checkpoint.preprocess
        assert loaded.provenance == tiny_checkpoint.provenance
        assert loaded.model.config == tiny_checkpoint.model.config
        wanted, state = rounded(tiny_checkpoint.model), loaded.model.state_dict()
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

    def test_matrices_on_disk_have_8_bits_a_weight_and_others_half_precision(
        self, tiny_checkpoint: Checkpoint, tiny_checkpoint_file: Path
    ) -> None:
        _, tensors = read_parts(tiny_checkpoint_file)
        for name, weights in tiny_checkpoint.model.state_dict().items():
            stored, scale = tensors.pop(name), tensors.pop(f"{name}.scale", None)
            if weights.ndim == 2:
                assert (stored.dtype, scale.dtype, scale.shape) == (torch.int8, torch.float32, (len(weights), 1))
            else:
                assert stored.dtype == (torch.float16 if weights.is_floating_point() else torch.int64)
                assert scale is None
        assert not tensors

    def test_a_weight_is_off_by_half_a_step_of_its_row_at_most(self, tiny_checkpoint: Checkpoint) -> None:
        model = copy.deepcopy(tiny_checkpoint.model)
        weights = model.decoder.output.weight.data
        weights.mul_(torch.logspace(-20, 3, len(weights))[:, None])  # rows of all sizes
        weights[2] = 0
        weights[3, 1:] = 0  # one weight alone
        with torch.no_grad():
            once = rounded(model)[WEIGHT]
            step = weights.abs().amax(1, keepdim=True) / 127
            assert ((once - weights).abs() <= 0.5001 * step).all()
            assert ((once - weights).abs() > 0.4 * step).any()
            assert torch.equal(once[2], weights[2])

    def test_what_is_rounded_already_does_not_change(self) -> None:
        many = torch.nn.Linear(3, 5000)  # rows
        once = rounded(many)  # type: ignore[arg-type]
        many.load_state_dict(once)
        again = rounded(many)  # type: ignore[arg-type]
        assert all(torch.equal(once[name], again[name]) for name in once)

    def test_weights_of_full_precision_are_read_too(
        self, changed: Callable[..., Path], tiny_checkpoint_file: Path
    ) -> None:
        def widen(_: Content, tensors: Tensors) -> None:
            tensors.update({name: t.float() for name, t in whole(tensors).items() if t.is_floating_point()})

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
        model = CaptionModel.create(ModelConfig(encoder, len(vocabulary), 4, 4, 0.5, "lstm", 1))
        save_checkpoint(tmp_path / "c", Checkpoint(model, vocabulary, Preprocess(64)))
        model.load_state_dict(rounded(model))
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

    @pytest.mark.parametrize(("layers", "tokens"), [(1, "word"), (1, "character"), (2, "word"), (2, "character")])
    @pytest.mark.parametrize("cell", CELLS)
    def test_every_kind_of_decoder_writes_the_same_captions_afterwards(
        self,
        cell: str,
        layers: int,
        tokens: str,
        tiny_checkpoint: Checkpoint,
        tmp_path: Path,
    ) -> None:
        encoder, vocabulary = tiny_checkpoint.model.encoder, Vocabulary.build(["一只狗在草地上跑"], tokens=tokens)
        config = ModelConfig(TINY_ENCODER, len(vocabulary), 8, 6, 0.1, cell, layers)
        torch.manual_seed(0)
        decoder = Decoder(config, encoder.feature_size).eval()
        for weights in decoder.parameters():
            torch.nn.init.normal_(weights)
        model = CaptionModel(config, encoder, decoder)
        save_checkpoint(tmp_path / "c", Checkpoint(model, vocabulary, tiny_checkpoint.preprocess))
        loaded = load_checkpoint(tmp_path / "c")
        assert loaded.model.config == config
        assert loaded.vocabulary == vocabulary
        model.load_state_dict(rounded(model))
        features = torch.randn(4, encoder.feature_size)
        for options in (DecodeOptions(num_captions=2), DecodeOptions("sample", seed=1)):
            captions = decode(decoder, features, Rules(options))
            assert decode(loaded.model.decoder, features, Rules(options)) == captions
            assert len({best.logprob for best, *_ in captions}) == 4
        save_checkpoint(tmp_path / "again", loaded)
        assert (tmp_path / "again").read_bytes() == (tmp_path / "c").read_bytes()

    def test_it_does_not_change_with_its_file(self, changed: Callable[..., Path]) -> None:
        """safetensors gives views into the file; Windows would not let it be replaced while they live."""
        path = changed(lambda _, tensors: whole(tensors) and None)
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


SCALE = f"{WEIGHT}.scale"


def whole(tensors: Tensors) -> Tensors:
    """The tensors of a file with its matrices as they are meant, in place of whole numbers and scales."""
    for name in [name.removesuffix(".scale") for name in tensors if name.endswith(".scale")]:
        tensors[name] = tensors[name] * tensors.pop(f"{name}.scale")
    return tensors


def as_version_1(content: Content, tensors: Tensors) -> None:
    """What version 1 wrote for the same captioner."""
    as_version_3(content, tensors)
    content["format_version"] = 1
    del content["tokens"]
    for field in ("cell", "layers"):
        del content["model"][field]
    for name in [name for name in tensors if name.startswith("decoder.recurrent.")]:
        tensors[name.replace("decoder.recurrent.0.cell.", "decoder.lstm.")] = tensors.pop(name)


def as_version_2(content: Content, tensors: Tensors) -> None:
    """What version 2 wrote for the same captioner."""
    as_version_3(content, tensors)
    content["format_version"] = 2
    content["model"] |= {"tie_embeddings": False, "variational_dropout": False}


def as_version_3(content: Content, tensors: Tensors) -> None:
    """What version 3 wrote for the same captioner."""
    content["format_version"] = 3
    del content["spellings"]
    for field in dataclasses.fields(ModelConfig):
        if field.default is not dataclasses.MISSING:
            del content["model"][field.name]
    tensors.update({name: t.half() for name, t in whole(tensors).items() if t.is_floating_point()})


def test_spellings_are_saved_and_loaded(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    words = tiny_checkpoint.vocabulary.words
    vocabulary = Vocabulary((*words[:-2], "hund", "straße"), spellings={"hund": "Hund", "straße": "Straße"})
    save_checkpoint(tmp_path / "german", dataclasses.replace(tiny_checkpoint, vocabulary=vocabulary))
    loaded = load_checkpoint(tmp_path / "german").vocabulary
    assert loaded == vocabulary == read_header(tmp_path / "german").vocabulary
    assert loaded.text(loaded.encode("a HUND on a straße")) == "A Hund on a Straße"


@pytest.mark.parametrize("as_version", [as_version_1, as_version_2, as_version_3])
class TestOlderVersions:
    def test_they_write_the_same_captions(
        self, as_version: Callable[..., None], changed: Callable[..., Path], tiny_checkpoint_file: Path
    ) -> None:
        path = changed(as_version)
        content, tensors = read_parts(path)
        assert (len(content["model"]), "decoder.lstm.weight_ih_l0" in tensors) in ((5, True), (9, False), (7, False))
        halves = load_checkpoint(tiny_checkpoint_file)
        halves.model.load_state_dict({name: t.half() for name, t in halves.model.state_dict().items()})
        pictures = [draw_picture(index) for index in range(6)]
        assert captioner_of(load_checkpoint(path)).caption_batch(pictures) == captioner_of(halves).caption_batch(
            pictures
        )

    def test_saved_again_they_are_of_this_version(
        self, as_version: Callable[..., None], changed: Callable[..., Path], tiny_checkpoint_file: Path, tmp_path: Path
    ) -> None:
        save_checkpoint(tmp_path / "again", load_checkpoint(changed(as_version)))
        content, tensors = read_parts(tmp_path / "again")
        expected, stored = read_parts(tiny_checkpoint_file)
        assert content == expected
        assert {name: tensor.dtype for name, tensor in tensors.items()} == {n: t.dtype for n, t in stored.items()}
        save_checkpoint(tmp_path / "third", load_checkpoint(tmp_path / "again"))
        assert (tmp_path / "third").read_bytes() == (tmp_path / "again").read_bytes()

    def test_a_file_half_of_another_version_is_refused(
        self, as_version: Callable[..., None], changed: Callable[..., Path]
    ) -> None:
        def mixed(content: Content, tensors: Tensors) -> None:
            as_version(content, tensors)
            content["format_version"] = {1: 2, 2: 1, 3: 4}[content["format_version"]]

        message = refusal(changed(mixed), load_checkpoint)
        expected = ("tokens is missing", "'tie_embeddings' is unknown", "spellings is missing")
        assert any(part in message for part in expected)


@pytest.mark.parametrize(("name", "tokens"), [("flickr8k", "word"), ("flickr8k-zh", "character")])
def test_shipped_checkpoints_are_complete(name: str, tokens: str) -> None:
    content, _ = read_parts(find_checkpoint(name))
    assert content["format_version"] <= FORMAT_VERSION
    loaded = load_checkpoint(find_checkpoint(name))
    assert loaded.vocabulary.tokens == tokens
    assert {"data", "encoder_weights", "training", "calibration", "validation"} <= loaded.provenance.keys()
    assert captioner_of(loaded).caption(draw_picture(0)).finished


class TestSaving:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6], ids=["nan", "inf", "too large"])
    @pytest.mark.parametrize("part", ["bias", "weight"])
    def test_weights_that_half_precision_cannot_hold_leave_the_old_file(
        self, value: float, part: str, tiny_checkpoint: Checkpoint, tmp_path: Path
    ) -> None:
        path = tmp_path / "best.safetensors"
        path.write_text("old")
        broken = copy.deepcopy(tiny_checkpoint)
        broken.model.decoder.output.get_parameter(part).data[3] = value
        with pytest.raises(ValueError, match=rf"decoder\.output\.{part} became too large, or not a number"):
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

    def test_a_pickle_is_not_unpickled_whatever_its_name(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "it ran",)

        torch.save({"weights": torch.zeros(3), "evil": Evil()}, tmp_path / "weights.safetensors")
        assert "not a .safetensors file" in refusal(tmp_path / "weights.safetensors", load_checkpoint)
        assert not (tmp_path / "it ran").exists()


DAMAGE: dict[str, tuple[Callable[[Content, Tensors], Any], str]] = {
    **{
        f"no {field}": (without("preprocess", field), f"'{field}' is missing in Preprocess")
        for field in ("size", "mean", "std")
    },
    "another cell": (set_to("model", "cell", value="peephole"), "the tensor 'decoder.recurrent.0.cell."),
    "a cell without memory": (set_to("model", "cell", value="gru"), "the tensor 'decoder.c0.bias' does not belong"),
    "a layer too many": (set_to("model", "layers", value=2), "the tensor 'decoder.recurrent.1.cell."),
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
    **{
        name: (
            lambda c, t, value=value: whole(t)[WEIGHT].__setitem__((3, 5), value),
            f"{WEIGHT} holds values that are not numbers, or far too large",
        )
        for name, value in {"NaN": float("nan"), "infinity": -float("inf"), "far too large": 1e30}.items()
    },
    "a scale NaN": (
        lambda c, t: t[SCALE].__setitem__((3, 0), float("nan")),
        f"{SCALE} holds values that are not numbers, or far too large",
    ),
    "a scale far too large": (lambda c, t: t[SCALE].mul_(1e30), f"{SCALE} holds values that are not numbers, or far"),
    "no scale": (lambda c, t: t.pop(SCALE), f"{WEIGHT} holds I8 values"),
    "a scale for weights": (lambda c, t: t.update({WEIGHT: t[WEIGHT].half()}), f"{WEIGHT} holds F16 values"),
    "a scale of half precision": (lambda c, t: t.update({SCALE: t[SCALE].half()}), f"{SCALE} holds F16 values"),
    "one scale for all": (
        lambda c, t: t.update({SCALE: t[SCALE][:1].clone()}),
        f"{SCALE} has shape (1, 1), not (18, ",
    ),
    **{
        f"a scale of {name}": (
            lambda c, t, name=name: t.update({f"{name}.scale": torch.ones(1)}),
            f"the tensor '{name}.scale' does not belong",
        )
        for name in ("decoder.output.bias", "encoder.backbone.conv1.0.weight", "decoder.nothing")
    },
    "nothing to divide by": (
        lambda c, t: t["decoder.feature_std"].__setitem__(3, 0.0),
        "feature_std holds zeros or less",
    ),
    "another network": (set_to("model", "encoder", value="resnet18"), "the tensor 'encoder.backbone."),
}


class TestDamage:
    @pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE.keys())
    def test_it_is_named(
        self, change: Callable[[Content, Tensors], Any], message: str, changed: Callable[..., Path]
    ) -> None:
        assert message in refusal(changed(change), load_checkpoint)

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
            {"hidden_size": 1 << 20, "embedding_size": 1 << 20},
        ],
        ids=str,
    )
    def test_sizes_that_lie_take_neither_memory_nor_time(
        self, fields: dict[str, Any], changed: Callable[..., Path]
    ) -> None:
        refusal(changed(set_to("model", "encoder", value="resnet18")), load_checkpoint)  # imports what loading imports
        path = changed(lambda content, _: content["model"].update(fields))
        forget_peak()
        before, started = peak_memory(), time.process_time()
        refusal(path, load_checkpoint)
        assert peak_memory() - before < 100_000_000
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
