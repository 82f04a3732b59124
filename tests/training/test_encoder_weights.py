"""Encoder weights fit exactly or are refused, and nothing false is said of their origin."""

from __future__ import annotations

import os
import pickle
import random
import re
import types
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_ENCODER, make_checkpoint
from torch import Tensor

from captioner.errors import CaptionerError, CheckpointError
from captioner.network.checkpoint import load_checkpoint, rounded
from captioner.network.encoder import Encoder
from captioner.network.preprocess import Preprocess
from captioner.training.encoder_weights import load_encoder_weights

State = dict[str, Tensor]


def published_state(name: str = TINY_ENCODER, seed: int = 1) -> State:
    """A state dict as torchvision publishes it: of the whole network, its classifier included."""
    from torchvision import models

    torch.manual_seed(seed)
    extra = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    return models.get_model(name, weights=None, **extra).state_dict()


def same_backbone(encoder: Encoder, state: State) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in encoder.backbone.state_dict().items())


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(TINY_ENCODER)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def refusal(encoder: Encoder, file: Path | None, name: str = TINY_ENCODER) -> str:
    before = {key: tensor.clone() for key, tensor in encoder.backbone.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_encoder_weights(encoder, name, file)
    message = str(caught.value)
    assert isinstance(caught.value, CaptionerError)
    assert message.isprintable()
    assert same_backbone(encoder, before), "what is refused must not be half loaded"
    return message


@pytest.mark.usefixtures("encoder")  # torchvision can only be imported after an encoder was made
class TestStateDict:
    @pytest.mark.parametrize("name", [TINY_ENCODER, "googlenet"])
    def test_it_is_loaded_exactly_without_its_classifiers(self, name: str, file: Path) -> None:
        state, encoder = published_state(name), Encoder(name)
        torch.save(state, file)
        assert state.keys() > encoder.backbone.state_dict().keys()
        provenance, preprocess, _ = load_encoder_weights(encoder, name, file)
        assert same_backbone(encoder, state)
        assert provenance == {"source": "file weights.pth", "sha256": sha256(file.read_bytes()).hexdigest()}
        assert preprocess.size == 224

    def test_it_may_lack_the_classifier_and_have_pytorchs_old_form(self, encoder: Encoder, file: Path) -> None:
        state = {key: tensor for key, tensor in published_state().items() if not key.startswith("fc.")}
        torch.save(state, file, _use_new_zipfile_serialization=False)
        load_encoder_weights(encoder, TINY_ENCODER, file)
        assert same_backbone(encoder, state)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s.pop("conv1.0.weight"), "conv1.0.weight is missing"),
            (lambda s: s.update(extra=torch.zeros(1)), "extra is not part of it"),
            (lambda s: s.update({"conv1.0.weight": torch.zeros(24, 1, 3, 3)}), "has shape (24, 1, 3, 3), not (24, 3"),
            (lambda s: s.clear(), " is missing"),
            (lambda s: [s.update({"module." + key: s.pop(key)}) for key in list(s)], " is missing"),
        ],
        ids=["missing key", "extra key", "wrong shape", "nothing", "prefix"],
    )
    def test_what_does_not_fit_is_named(
        self, change: Callable[[State], Any], message: str, encoder: Encoder, file: Path
    ) -> None:
        state = published_state()
        change(state)
        torch.save(state, file)
        text = refusal(encoder, file)
        assert text.startswith(f"{file}: not the weights of {TINY_ENCODER}: ")
        assert message in text

    def test_values_that_are_not_numbers_are_refused(self, encoder: Encoder, file: Path) -> None:
        state = published_state()
        state["conv1.0.weight"][0] = float("nan")
        torch.save(state, file)
        assert refusal(encoder, file) == f"{file}: conv1.0.weight holds values that are not numbers"

    def test_another_network_is_refused(self, encoder: Encoder, file: Path) -> None:
        torch.save(published_state("shufflenet_v2_x1_0"), file)
        assert "not the weights of" in refusal(encoder, file)

    @pytest.mark.parametrize(
        "content",
        [[torch.zeros(1)], {"state_dict": {"a": torch.zeros(1)}}, {"epoch": 3}, {1: torch.zeros(1)}, torch.zeros(3), 7],
        ids=["list", "nested", "numbers", "keys that are no names", "tensor", "number"],
    )
    def test_what_is_no_state_dict_is_refused(self, content: object, encoder: Encoder, file: Path) -> None:
        torch.save(content, file)
        assert refusal(encoder, file) == f"{file}: holds no state dict (names and tensors)"

    @pytest.mark.parametrize(
        "content",
        [b"", b"hello", b"<!DOCTYPE html>\n<title>404</title>\n" * 20, random.Random(0).randbytes(3000), b"PK\x03\x04"],
        ids=["empty", "text", "a web page", "random", "half a zip"],
    )
    def test_what_is_no_file_of_pytorch_is_refused(self, content: bytes, encoder: Encoder, file: Path) -> None:
        file.write_bytes(content)
        assert "not a file of PyTorch weights" in refusal(encoder, file)

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    @pytest.mark.parametrize("old_form", [False, True])
    def test_damaged_files_raise_nothing_else(self, old_form: bool, encoder: Encoder, file: Path) -> None:
        torch.save(published_state(), file, _use_new_zipfile_serialization=not old_form)
        data, rng = file.read_bytes(), random.Random(0)
        for _ in range(40):
            damaged = bytearray(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
            ends = (*range(min(9000, len(damaged))), *range(max(0, len(damaged) - 3000), len(damaged)))
            for at in rng.sample(ends, min(3, len(ends))):  # where the names are; weights may have any value
                damaged[at] = rng.choice([0, 255, damaged[at] ^ 1])
            file.write_bytes(damaged)
            try:
                load_encoder_weights(encoder, TINY_ENCODER, file)
            except CheckpointError:
                continue

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    @pytest.mark.parametrize("by_torch", [True, False])
    def test_code_in_a_file_is_not_run_nor_is_it_said_how_to(
        self, by_torch: bool, encoder: Encoder, file: Path, tmp_path: Path
    ) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(tmp_path / "it ran"),)

        content = {**published_state(), "evil": Evil()}
        if by_torch:
            torch.save(content, file)
        else:
            file.write_bytes(pickle.dumps({"evil": Evil()}))
        message = refusal(encoder, file)
        assert "or it holds more than tensors" in message
        assert "weights_only" not in message
        assert not (tmp_path / "it ran").exists()

    def test_an_archive_that_unpacks_to_more_than_itself_is_not_unpacked(self, encoder: Encoder, file: Path) -> None:
        torch.save(published_state(), file)
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content if "/data/" not in name else content + bytes(10_000_000 // len(entries)))
        assert "not as PyTorch writes files" in refusal(encoder, file)

    @pytest.mark.parametrize("name", ["missing.pth", "."])
    def test_a_file_that_is_not_there(self, name: str, encoder: Encoder, tmp_path: Path) -> None:
        assert "no such file of encoder weights" in refusal(encoder, tmp_path / name)


class TestOurCheckpoint:
    def test_its_encoder_is_taken(self, encoder: Encoder, tiny_checkpoint_file: Path) -> None:
        checkpoint = load_checkpoint(tiny_checkpoint_file)
        provenance, preprocess, classifier = load_encoder_weights(encoder, TINY_ENCODER, tiny_checkpoint_file)
        wanted = rounded(make_checkpoint().model)
        assert same_backbone(encoder, {key.removeprefix("encoder.backbone."): t for key, t in wanted.items()})
        assert classifier is None
        assert provenance == {
            "source": "file tiny.safetensors",
            "sha256": sha256(tiny_checkpoint_file.read_bytes()).hexdigest(),
        }
        assert preprocess == checkpoint.preprocess

    def test_of_another_encoder_the_message_says_which(self, tiny_checkpoint_file: Path) -> None:
        message = refusal(Encoder("shufflenet_v2_x1_0"), tiny_checkpoint_file, "shufflenet_v2_x1_0")
        assert (
            f"holds the weights of {TINY_ENCODER}, not of shufflenet_v2_x1_0: add --encoder {TINY_ENCODER}" in message
        )

    def test_a_damaged_one_is_refused_as_such(self, encoder: Encoder, tiny_checkpoint_file: Path, file: Path) -> None:
        file.write_bytes(tiny_checkpoint_file.read_bytes()[:-9])
        assert "damaged, or not a .safetensors file" in refusal(encoder, file)


class TestPublished:
    """torchvision's own weights, with files of ours in the place of its server: the code that loads them is real."""

    @pytest.fixture
    def server(self, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The file that torchvision's weights API points to; its name tells the true hash, as all of theirs do."""
        from torchvision import models

        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
        torch.save(published_state(), tmp_path / "made")
        folder = tmp_path / "server"
        folder.mkdir()
        digest = sha256((tmp_path / "made").read_bytes()).hexdigest()
        file = (tmp_path / "made").rename(folder / f"tiny-{digest[:8]}.pth")

        class Weights:
            url = file.as_uri()

            def __str__(self) -> str:
                return "Tiny_Weights.IMAGENET1K_V1"

        monkeypatch.setattr(models, "get_model_weights", lambda name: types.SimpleNamespace(DEFAULT=Weights()))
        return file

    @pytest.fixture
    def cache(self, server: Path, tmp_path: Path) -> Path:
        """Where torch keeps what was downloaded."""
        return tmp_path / "home" / "hub" / "checkpoints" / server.name

    def test_they_are_downloaded_once(self, encoder: Encoder, server: Path, cache: Path) -> None:
        wanted = {
            "source": "torchvision Tiny_Weights.IMAGENET1K_V1",
            "sha256": sha256(server.read_bytes()).hexdigest(),
        }
        assert load_encoder_weights(encoder, TINY_ENCODER)[:2] == (wanted, Preprocess())
        assert cache.read_bytes() == server.read_bytes()
        server.unlink()
        other = Encoder(TINY_ENCODER)
        assert load_encoder_weights(other, TINY_ENCODER)[:2] == (wanted, Preprocess())
        assert same_backbone(other, published_state())

    def test_other_weights_in_the_cache_are_not_called_torchvisions(
        self, encoder: Encoder, server: Path, cache: Path
    ) -> None:
        cache.parent.mkdir(parents=True)
        torch.save(published_state(seed=2), cache)
        provenance, *_ = load_encoder_weights(encoder, TINY_ENCODER)
        assert same_backbone(encoder, published_state(seed=2))
        assert provenance["sha256"] == sha256(cache.read_bytes()).hexdigest()
        assert "not what torchvision published" in provenance["source"]
        assert "Tiny_Weights" not in provenance["source"]

    def test_a_damaged_file_in_the_cache_is_named(self, encoder: Encoder, server: Path, cache: Path) -> None:
        cache.parent.mkdir(parents=True)
        cache.write_bytes(server.read_bytes()[:1000])
        assert str(cache) in refusal(encoder, None)

    def test_without_a_network_the_message_says_how_to_get_the_file(
        self, encoder: Encoder, server: Path, cache: Path
    ) -> None:
        url = server.as_uri()
        server.unlink()
        message = refusal(encoder, None)
        assert re.search(rf"the pretrained weights of {TINY_ENCODER} cannot be downloaded \([^<>]+\)", message)
        assert f"download {url} on another machine" in message
        assert "--encoder-weights FILE" in message
        assert not cache.exists()

    def test_a_download_with_the_wrong_hash_is_refused_and_not_kept(
        self, encoder: Encoder, server: Path, cache: Path
    ) -> None:
        torch.save(published_state(seed=2), server)
        assert "invalid hash value" in refusal(encoder, None)
        assert not list(cache.parent.iterdir())
