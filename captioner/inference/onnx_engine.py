"""The network computed by onnxruntime, from the folder that `captioner export` wrote. Nothing here needs torch.

The files and their inputs and outputs are described in docs/export.md.
Needs the package onnxruntime: pip install "captioner[onnx]".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from captioner.errors import CheckpointError, DeviceError, OptionError, to_install
from captioner.inference.engine import About, Look
from captioner.inference.rules import Ids
from captioner.machine import available_cpus, give_back_freed_memory, keep_freed_memory
from captioner.network.header import dataclass_from, read_export
from captioner.network.preprocess import Preprocess

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.explanation import Explanation
    from captioner.inference.rules import Rules

State: TypeAlias = "tuple[NDArray[np.float32], ...]"  # (h, c), or (h,) where the cell has no memory; (L, R, H) each
_PRECISIONS = {32: "float32", 16: "float16", 8: "int8"}


class OnnxEngine:
    """An exported model, computed by onnxruntime on the CPU. See `engine.Engine`. `file` is its captioner.json.

    Raises CheckpointError for what is damaged, OptionError for a precision that the model does not have, DeviceError
    for another device, or where onnxruntime is not installed.
    """

    name, device = "onnx", "cpu"

    def __init__(self, file: Path, device: str = "auto", precision: str = "auto") -> None:
        header, content = read_export(file)
        self.precision = _PRECISIONS[content["bits"]]
        if device not in ("auto", "cpu"):
            raise DeviceError(f"an exported model computes on the CPU, not on {device!r}: leave the device out")
        if precision not in ("auto", self.precision):
            raise OptionError(
                f"{file.parent} was exported in {self.precision}, not {precision}: leave the precision out"
            )
        try:
            preprocess: Preprocess = dataclass_from(Preprocess, header.preprocess)
            if not 1 <= preprocess.size <= 4096:
                raise ValueError("impossible preprocessing")
        except ValueError as error:
            raise CheckpointError(f"{file}: damaged: {error}") from error
        about = header.config, header.vocabulary, preprocess, header.provenance, header.trust
        self.about = About(*about, content["predicted"])
        self.workers = available_cpus()
        self._encoder, self._start, self._step = (
            _session(file.with_name(f"{name}.onnx")) for name in ("encoder", "start", "step")
        )
        keep_freed_memory()  # only now: see `_session`
        self._states = [given.name for given in self._step.get_inputs()[1:]]
        self.feature_size = self._start.get_inputs()[0].shape[1]

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, S, S, 3) -> (B, F)"""
        # One by one: what is between the layers then stays in the processor's cache, and takes little memory.
        features = np.empty((len(pixels), self.feature_size), dtype=np.float32)
        for place in range(len(pixels)):
            features[place] = self._encoder.run(["features"], {"pixels": pixels[place : place + 1]})[0]
        if not np.isfinite(features).all():
            raise CheckpointError("the exported encoder computes what is not a number: export the model anew")
        return features

    def look(self, features: NDArray[np.float32]) -> Look:
        """(B, F) -> what the decoder makes of them"""
        names = [found.name for found in self._start.get_outputs()]
        found = dict(zip(names, self._start.run(names, {"features": features}), strict=True))
        state = tuple(found[name] for name in self._states)
        none = np.empty((len(features), 0), dtype=np.float32)
        return Look(state, found.get("evidence"), found.get("words", none), found["kind"])

    def zero_state(self, batch: int) -> State:
        """A state of `batch` rows without a picture."""
        config = self.about.config
        return tuple(np.zeros((config.layers, batch, config.hidden_size), dtype=np.float32) for _ in self._states)

    def step(self, tokens: Ids, state: State) -> tuple[NDArray[np.float32], State]:
        """(R,), state -> logits (R, V), state"""
        given = dict(zip(self._states, state, strict=True))
        after = [f"{name}_next" for name in self._states]
        logits, *state_after = self._step.run(["logits", *after], {"tokens": tokens, **given})
        return logits, tuple(state_after)

    def pick(self, state: State, rows: Ids) -> State:
        """The rows of a state that are named, (M,), in that order."""
        return tuple(part[:, rows] for part in state)

    def explain(self, pixels: NDArray[np.uint8], rules: Rules) -> Explanation:
        """Raises DeviceError: the inside of a caption is shown by torch."""
        raise DeviceError("an exported model cannot show how a caption came about: load the .safetensors file")

    def work_alone(self) -> None:
        """Nothing: each call computes on the thread that makes it."""

    def work_together(self) -> None:
        """Nothing."""


def _session(file: Path) -> Any:
    """An ONNX file, ready to run. Where onnxruntime has OpenVINO's provider, that computes."""
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(f"an exported model needs onnxruntime: {to_install('onnx')}") from error
    options = onnxruntime.SessionOptions()
    # Batches are computed side by side, each on the thread that asks for it. Threads that share a batch would wait for
    # each other after every layer.
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors are raised, too
    openvino = ("OpenVINOExecutionProvider", {"device_type": "CPU", "num_of_threads": "1"})
    wanted: list[Any] = [openvino] if openvino[0] in onnxruntime.get_available_providers() else []
    try:
        session = onnxruntime.InferenceSession(file, options, providers=[*wanted, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no base of their own
        raise CheckpointError(f"{file}: onnxruntime cannot run it: {error!s:.300}") from error
    give_back_freed_memory()  # while it arranges the weights, onnxruntime takes several times what they need
    return session
