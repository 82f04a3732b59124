"""Tiny runs for tests: their options, their data, and a death in the middle of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_ENCODER

from captioner.data.captions import read_captions
from captioner.data.splits import Split, find_examples, read_split_list
from captioner.training.config import TrainConfig
from captioner.training.optimiser import Optimiser

Shapes = tuple[Path, Path, Path, Path]

TINY = TrainConfig(
    encoder=TINY_ENCODER,
    epochs=2,
    finetune_epochs=1,
    scst_epochs=1,
    match_epochs=1,
    scst_samples=2,
    batch_size=16,
    image_size=32,
    hidden_size=32,
    embedding_size=16,
    concepts=10,
    minimum_count=1,
)


def split_of(shapes: Shapes) -> Split:
    captions = read_captions(shapes[0]).captions
    parts = [find_examples(captions, shapes[1], read_split_list(names)) for names in shapes[2:]]
    return Split(parts[0], parts[1], {"captions": "shapes"})


def quiet(line: str) -> None:
    """Says nothing."""


def metrics(folder: Path) -> list[dict[str, Any]]:
    """What was logged, but for the time that it took."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


class Killed(Exception):
    """Stands for a SIGKILL: nothing of the run goes on after it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int, deed: Callable[[], None] | None = None) -> None:
    """Let the run die within its optimiser's step number `steps`, over all stages; or do a deed there."""
    plain, done = Optimiser.step, 0

    def step(self: Optimiser, loss: torch.Tensor) -> None:
        nonlocal done
        done += 1
        plain(self, loss)
        if done == steps and deed:
            deed()
        elif done == steps:
            raise Killed

    monkeypatch.setattr(Optimiser, "step", step)


def weights_without_gradients(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the weights that an optimiser is to change, and that had no gradient in some step."""
    without: set[str] = set()
    plain = Optimiser.step

    def step(self: Optimiser, loss: torch.Tensor) -> None:
        plain(self, loss)
        without.update(name for name, weights in self.named.items() if weights.grad is None)

    monkeypatch.setattr(Optimiser, "step", step)
    return without
