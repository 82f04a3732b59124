"""Decoding with a decoder of torch, such as one with random weights or a stub."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captioner.inference import decoding
from captioner.inference.decoding import BeamWatcher, Hypothesis
from captioner.inference.rules import Rules
from captioner.inference.torch_engine import TorchSteps


def decode(
    decoder: Any, features: Tensor, rules: Rules, watch: BeamWatcher | None = None, evidence: Tensor | None = None
) -> list[list[Hypothesis]]:
    """What `decoding.decode` writes for features (B, F), with evidence (B, V)."""
    found = None if evidence is None else evidence.numpy()
    with torch.inference_mode():
        state = decoder.init_state(features)
    return decoding.decode(TorchSteps(decoder), state, len(features), rules, found, watch)
