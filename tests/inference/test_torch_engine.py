"""The network computed by torch: precisions, threads, devices, and models that are being trained."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_picture, make_checkpoint

import captioner
from captioner.errors import CheckpointError, DeviceError
from captioner.inference import torch_engine
from captioner.inference.torch_engine import PictureEncoder, captioner_of
from captioner.network import checkpoint
from captioner.network.checkpoint import Checkpoint
from captioner.network.packed import PackedLinear
from captioner.network.words import WordPredictor
from captioner.options import DecodeOptions


@pytest.mark.parametrize("kind", ["bfloat16", "gradients", "backwards", "read-only"])
def test_features_may_be_any_array_or_tensor(tiny_checkpoint: Checkpoint, pictures: list[Path], kind: str) -> None:
    model = captioner_of(tiny_checkpoint)
    features = model.encode(pictures)
    fixed = features.copy()
    fixed.flags.writeable = False
    given = {
        "bfloat16": torch.from_numpy(features).bfloat16(),
        "gradients": torch.from_numpy(features).clone().requires_grad_(),
        "backwards": features[::-1],
        "read-only": fixed,
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captions, scores = model.caption_features(given), model.score_features(given, "a dog")
    assert len(captions) == len(scores) == len(pictures)
    if kind != "bfloat16":
        order = -1 if kind == "backwards" else 1
        assert [caption.text for caption in captions] == [
            caption.text for caption in model.caption_features(features)[::order]
        ]


def test_prepared_pictures_may_be_changed(tiny_checkpoint: Checkpoint, pictures: list[Path]) -> None:
    captioner_of(tiny_checkpoint).prepare(pictures[0])[0, 0] = 0


def test_many_features_are_scored_in_parts(
    tiny_checkpoint: Checkpoint, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = captioner_of(tiny_checkpoint)
    features = model.encode(pictures)
    whole = [caption.logprob for caption in model.score_features(features, "a dog")]
    monkeypatch.setattr("captioner.inference.captioner.ROWS", 3)
    sizes = list[int]()
    step = model.network.step
    monkeypatch.setattr(model.network, "step", lambda tokens, state: sizes.append(len(tokens)) or step(tokens, state))
    assert [caption.logprob for caption in model.score_features(features, "a dog")] == pytest.approx(whole, abs=1e-4)
    assert max(sizes) == 3


def test_bfloat16_is_nearly_the_same_network(tiny_checkpoint: Checkpoint, pictures: list[Path]) -> None:
    """Emulated where the processor lacks it."""
    encoder = PictureEncoder(tiny_checkpoint.model.encoder, tiny_checkpoint.preprocess, precision="bfloat16")
    exact, fast = captioner_of(tiny_checkpoint), captioner_of(tiny_checkpoint, encoder)
    assert (exact.precision, fast.precision) == ("float32", "bfloat16")
    features, near = exact.encode(pictures), fast.encode(pictures)
    assert near.dtype == np.float32
    assert 0 < np.linalg.norm(near - features) < 0.05 * np.linalg.norm(features)
    for options in (DecodeOptions("greedy"), DecodeOptions("sample", num_captions=2), DecodeOptions(num_captions=2)):
        for result in fast.caption_files(pictures, options):
            assert result.caption is not None
            assert result.caption.logprob < 0.0
    scores = [(exact.score(path, "a dog runs"), fast.score(path, "a dog runs")) for path in pictures]
    assert all(a.logprob == pytest.approx(b.logprob, abs=0.5) for a, b in scores)
    assert any(a.logprob != b.logprob for a, b in scores)
    # The checkpoint itself stays as it is.
    assert {weight.dtype for weight in tiny_checkpoint.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("strategy", ["greedy", "sample", "beam"])
def test_an_encoder_that_computes_no_numbers_is_damaged(tiny_checkpoint: Checkpoint, strategy: str) -> None:
    """Its weights may each be a number: a negative variance has no root."""
    broken = copy.deepcopy(tiny_checkpoint)
    for name, values in broken.model.encoder.named_buffers():
        if name.endswith("running_var"):
            values.fill_(-1.0)
    with pytest.raises(CheckpointError, match="weights are damaged"):
        captioner_of(broken).caption(draw_picture(0), DecodeOptions(strategy))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_model_that_it_is_made_from_stays_as_it_is(pictures: list[Path], precision: str) -> None:
    """It may be one that is being trained, and trained further afterwards."""
    checkpoint = make_checkpoint()
    decoder = checkpoint.model.decoder.train()
    encoder = PictureEncoder(checkpoint.model.encoder, checkpoint.preprocess, precision=precision)
    model = captioner_of(checkpoint, encoder)
    before = model.caption_batch(pictures)
    assert all(module.training for module in decoder.modules())
    assert all(weights.requires_grad for weights in checkpoint.model.parameters())
    assert {weights.dtype for weights in checkpoint.model.parameters()} == {torch.float32}
    with torch.no_grad():
        for weights in checkpoint.model.parameters():
            weights.add_(1.0)
    assert model.caption_batch(pictures) == before


def test_pictures_are_encoded_without_a_decoder(tiny_checkpoint: Checkpoint, pictures: list[Path]) -> None:
    encoder = PictureEncoder(tiny_checkpoint.model.encoder, tiny_checkpoint.preprocess)
    model = captioner_of(tiny_checkpoint, encoder)
    assert np.array_equal(encoder.encode(pictures).numpy(), model.encode(pictures))
    assert (model.precision, model.engine, model.device) == ("float32", "torch", "cpu")
    assert model.preprocess is encoder.preprocess is tiny_checkpoint.preprocess


def test_pictures_are_read_by_as_many_threads_as_the_quota_allows(
    tiny_checkpoint: Checkpoint, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads: int) -> None:
            asked.append(threads)
            super().__init__(threads)

    monkeypatch.setattr(torch_engine, "available_cpus", lambda: 3)
    monkeypatch.setattr(torch_engine, "ThreadPoolExecutor", Pool)
    encoder = PictureEncoder(tiny_checkpoint.model.encoder, tiny_checkpoint.preprocess)
    assert len(encoder.encode(pictures)) == len(pictures)
    assert asked == [3]


def test_a_busy_machine_gets_fewer_threads_and_the_same_captions(
    tiny_checkpoint_file: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_engine._most_threads.cache_clear()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        captions = []
        for free, threads in ((4, 2), (1, 1)):
            monkeypatch.setattr(torch_engine, "available_cpus", lambda: 4)
            monkeypatch.setattr(torch_engine, "free_cpus", lambda since, free=free: free)
            model = captioner.load(tiny_checkpoint_file, device="cpu", precision="float32")
            assert torch.get_num_threads() == threads
            # These do not wait for each other.
            assert model.network.workers == 2
            captions.append([result.caption for result in model.caption_files(pictures, batch_size=2)])
            assert torch.get_num_threads() == threads
        assert captions[0] == captions[1]
    finally:
        torch_engine._most_threads.cache_clear()
        torch.set_num_threads(before)


def test_a_model_is_loaded_on_one_thread_because_others_may_be_busy(
    tiny_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: (seen.append(torch.get_num_threads()), function(*given))[1]

    for module, name in (
        (checkpoint, "_read"),
        (torch_engine, "folded_for_inference"),
        (torch_engine, "fused_for_inference"),
        (torch_engine, "packed_for_decoding"),
    ):
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        captioner.load(tiny_checkpoint_file, device="cpu")
    finally:
        torch.set_num_threads(before)
    assert len(seen) > 3
    assert set(seen) == {1}


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_cuda_then_mps_then_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint_file: Path, cuda: bool, mps: bool, best: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    asked = []

    def refuse(device: str) -> None:
        asked.append(device)
        raise DeviceError("not tried")

    monkeypatch.setattr(torch_engine, "check_device", refuse)
    with pytest.raises(DeviceError):
        captioner.load(tiny_checkpoint_file)
    assert asked == [best]


def test_captioning_imports_nothing_that_takes_a_second_and_is_not_needed() -> None:
    """The shipped network needs no torchvision. torch's compiler is imported by what only looks harmless."""
    code = """if True:
        import sys
        import numpy as np
        import captioner
        print(captioner.load().caption(np.zeros((64, 64, 3), dtype=np.uint8)))
        print(sorted({"torchvision", "torch._dynamo", "sympy"} & sys.modules.keys()))
    """
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_words_of_a_picture_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, of_names = list[int](), WordPredictor.of_names

    def counted(self: WordPredictor, features: torch.Tensor) -> torch.Tensor:
        calls.append(len(features))
        return of_names(self, features)

    monkeypatch.setattr(WordPredictor, "of_names", counted)
    captioner.load("flickr8k").caption(draw_picture(0))
    assert calls == [1]


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_decoder_of_the_cpu_is_packed_where_that_was_tried(
    tiny_checkpoint: Checkpoint, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    wanted = captioner_of(tiny_checkpoint).caption(pictures[0]).text
    monkeypatch.setattr("platform.machine", lambda: machine)
    found = captioner_of(tiny_checkpoint)
    assert isinstance(found.network.decoder.output, PackedLinear) == (machine == "x86_64")
    assert found.caption(pictures[0]).text == wanted
