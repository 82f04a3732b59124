"""What computes the network: torch (`torch_engine`) or onnxruntime (`onnx_engine`). Nothing here needs either.

A `Captioner` asks an engine for features, for what it sees in them, and for the logits of the next word, and gets NumPy
arrays. Shapes: B pictures, R rows, S image side, F feature, V vocabulary, W predicted words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from captioner.inference.decoding import StepDecoder
from captioner.network.config import ModelConfig, Trust
from captioner.network.preprocess import Preprocess
from captioner.vocab import Vocabulary

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.explanation import Explanation
    from captioner.inference.rules import Rules


@dataclass(frozen=True)
class About:
    """What a checkpoint says of itself. `predicted` (W,) are the tokens of the words that it finds in a picture."""

    config: ModelConfig
    vocabulary: Vocabulary
    preprocess: Preprocess
    provenance: dict[str, Any]
    trust: Trust | None
    predicted: Sequence[int]


@dataclass(frozen=True)
class Look:
    """What the decoder's first look at B pictures gives: its state, and all else that follows from their features."""

    state: Any
    evidence: NDArray[np.float32] | None  # (B, V), see `WordPredictor.evidence`
    words: NDArray[np.float32]  # (B, W), the probabilities of the predicted words
    kind: NDArray[np.float32]  # (B, 3), see `trust.feature_inputs`


class Engine(StepDecoder, Protocol):
    """A loaded network. Threads may share it."""

    name: str  # "torch" or "onnx"
    device: str
    precision: str
    feature_size: int
    workers: int  # threads that may compute side by side
    about: About

    # `step` is never called without rows, where an LSTM of onnxruntime ends the process.

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels (B, S, S, 3) to features (B, F). Raises CheckpointError if they are not finite."""

    def look(self, features: NDArray[np.float32]) -> Look:
        """Features (B, F) to what the decoder makes of them."""

    def zero_state(self, batch: int) -> Any:
        """A state of B rows without a picture, with which the decoder is a plain language model."""

    def explain(self, pixels: NDArray[np.uint8], rules: Rules) -> Explanation:
        """Caption a picture, (S, S, 3), and tell how the caption came about. Raises DeviceError without torch."""

    def work_alone(self) -> None:
        """Say that the calling thread is one of several that compute side by side."""

    def work_together(self) -> None:
        """Take back what `work_alone` changed for the whole process."""
