"""The network computed by torch: in float32 or bfloat16, on the CPU or on another device."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captioner.errors import CheckpointError
from captioner.inference.captioner import Captioner
from captioner.inference.devices import best_device, check_device
from captioner.inference.engine import About, Look
from captioner.inference.explanation import Explanation, explain
from captioner.inference.parallel import BATCH_SIZE, in_batches, in_order
from captioner.inference.rules import Ids, Rules
from captioner.inference.trust import feature_inputs
from captioner.machine import available_cpus, cpu_times, free_cpus, keep_freed_memory
from captioner.network.checkpoint import Checkpoint, load_checkpoint
from captioner.network.convolutions import folded_for_inference, fused_for_inference
from captioner.network.encoder import Encoder, as_batch, computing_type, in_bfloat16, normalise
from captioner.network.model import Decoder
from captioner.network.packed import packed_for_decoding
from captioner.network.preprocess import Preprocess
from captioner.network.recurrent import State
from captioner.network.threads import one_thread
from captioner.pictures.load import ImageSource

_TOGETHER = 8  # pictures for each thread
_DAMAGED = "the checkpoint's encoder computes what is not a number: its weights are damaged"


def load_engine(checkpoint: Path, device: str, precision: str) -> TorchEngine:
    """The engine of a checkpoint's file: see `captioner.load`."""
    device = best_device() if device == "auto" else device
    check_device(device)
    before = cpu_times()
    if device == "cpu":
        keep_freed_memory()
    loaded = load_checkpoint(checkpoint)
    engine = TorchEngine(loaded, PictureEncoder(loaded.model.encoder, loaded.preprocess, device, precision))
    if device == "cpu":
        free = free_cpus(before) if before else available_cpus()  # loading took long enough to tell
        engine.threads = min(engine.threads, free)
        engine.work_together()
    return engine


def captioner_of(checkpoint: Checkpoint, encoder: PictureEncoder | None = None) -> Captioner:
    """A captioner of a checkpoint that is in memory already. Without an `encoder` it computes in float32 on the CPU."""
    return Captioner(TorchEngine(checkpoint, encoder))


class PictureEncoder:
    """From pictures to features, on one device and in one precision. Threads may share it.

    It computes with a copy of `encoder` that was made fast, and leaves the encoder itself as it is.
    Raises OptionError for an unknown precision, and CheckpointError for weights that are not finite.
    """

    @one_thread()
    def __init__(
        self, encoder: Encoder, preprocess: Preprocess, device: str = "cpu", precision: str = "float32"
    ) -> None:
        self.preprocess, self.feature_size = preprocess, encoder.feature_size
        self.device = torch.device(device)
        self.dtype = computing_type(precision, self.device.type)
        network = folded_for_inference(encoder)
        # oneDNN's activations turn what is not a number into one.
        if not all(torch.isfinite(weights).all() for weights in chain(network.parameters(), network.buffers())):
            raise CheckpointError(_DAMAGED)
        network = (in_bfloat16(network) if self.dtype == torch.bfloat16 else network).to(self.device)
        self.network = fused_for_inference(network) if self.device.type == "cpu" else network

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), uint8, to features (B, F), float32. Raises CheckpointError if they are not finite."""
        # On a CPU a few at a time, so that more of what flows between layers stays in the processor's cache.
        some = _TOGETHER * torch.get_num_threads() if self.device.type == "cpu" else max(1, len(pixels))
        parts = pixels.split(some)
        found = [self.network(normalise(self.preprocess, part.to(self.device)).to(self.dtype)) for part in parts]
        features = torch.cat(found)
        if not torch.isfinite(features).all():
            raise CheckpointError(_DAMAGED)
        return features.float()

    def encode(self, images: Iterable[ImageSource]) -> Tensor:
        """Pictures to features (N, F), float32. Raises ImageError for the first that cannot be read."""
        with ThreadPoolExecutor(available_cpus()) as pool:
            batches = in_batches(in_order(pool, self.preprocess.read, images, 3 * BATCH_SIZE), BATCH_SIZE)
            features = [self.encode_pixels(as_batch(batch)) for batch in batches]
        return torch.cat([torch.empty(0, self.feature_size, device=self.device), *features])


class TorchSteps:
    """A decoder of torch as `decoding` needs it."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self._device = decoder, decoder.feature_mean.device

    @torch.inference_mode()
    def step(self, tokens: Ids, state: State) -> tuple[NDArray[np.float32], State]:
        """(R,), state -> logits (R, V), state"""
        logits, state = self._decoder.step(torch.from_numpy(tokens).to(self._device), state)
        return logits.float().cpu().numpy(), state

    @torch.inference_mode()
    def pick(self, state: State, rows: Ids) -> State:
        """The rows of a state that are named, (M,), in that order."""
        index = torch.from_numpy(rows).to(self._device)
        return tuple(part.index_select(1, index) for part in state)


class TorchEngine(TorchSteps):
    """A checkpoint, computed by torch. See `engine.Engine`.

    It uses a copy of the checkpoint's decoder, so a model that is being trained stays as it is.
    """

    name = "torch"

    def __init__(self, checkpoint: Checkpoint, encoder: PictureEncoder | None = None) -> None:
        self.encoder = encoder or PictureEncoder(checkpoint.model.encoder, checkpoint.preprocess)
        self.device, self.feature_size = self.encoder.device.type, self.encoder.feature_size
        self.precision = str(self.encoder.dtype).removeprefix("torch.")  # "float32" or "bfloat16"
        self.workers = _most_threads()
        self.threads = torch.get_num_threads()  # that share a batch
        copied = in_bfloat16 if self.encoder.dtype == torch.bfloat16 else copy.deepcopy
        with one_thread():
            decoder = copied(checkpoint.model.decoder).eval().requires_grad_(False).to(self.encoder.device)
            self.decoder = packed_for_decoding(decoder) if self.device == "cpu" else decoder
        super().__init__(self.decoder)
        predictor = self.decoder.words
        self.about = About(
            checkpoint.model.config,
            checkpoint.vocabulary,
            checkpoint.preprocess,
            checkpoint.provenance,
            checkpoint.trust,
            predictor.tokens.tolist() if predictor.size else [],
        )

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, S, S, 3) -> (B, F)"""
        return self.encoder.encode_pixels(as_batch(pixels)).cpu().numpy()

    def on_device(self, features: NDArray[np.float32]) -> Tensor:
        """Features as the decoder reads them."""
        return torch.from_numpy(features).to(self.encoder.device, self.encoder.dtype)

    @torch.inference_mode()
    def look(self, features: NDArray[np.float32]) -> Look:
        """(B, F) -> what the decoder makes of them"""
        given, decoder = self.on_device(features), self.decoder
        words = decoder.words(given)
        evidence = decoder.words.evidence(words)
        return Look(
            decoder.init_state(given, words),
            None if evidence is None else evidence.cpu().numpy(),
            words.float().cpu().numpy(),
            feature_inputs(decoder.standardised(given).float().cpu().numpy()),
        )

    def zero_state(self, batch: int) -> Any:
        """A state of B rows without a picture."""
        return self.decoder.zero_state(batch)

    def explain(self, pixels: NDArray[np.uint8], rules: Rules) -> Explanation:
        """See `explanation.explain`."""

        def encode(pictures: Tensor) -> Tensor:
            return self.encoder.encode_pixels(pictures).to(self.encoder.dtype)

        return explain(encode, self, as_batch(pixels[None])[0], rules)

    def work_alone(self) -> None:
        """Compute on a single thread of torch's.

        Threads that share a batch would wait for each other after every layer.
        """
        torch.set_num_threads(1)

    def work_together(self) -> None:
        """Otherwise torch would give new threads of the process the number that ours asked for."""
        torch.set_num_threads(self.threads)


@cache
def _most_threads() -> int:
    """The most threads that may be used: by the container's quota, and by what torch was told before the first model.

    Workers do not wait for each other, so a busy machine is no reason to have fewer of them.
    """
    return min(available_cpus(), torch.get_num_threads())
