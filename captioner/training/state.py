"""The resumable state of a run: one safetensors file, with the numbers as JSON in its header."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from captioner.errors import TrainingError, one_line
from captioner.files import replacing

STATE_NAME = "state.safetensors"
_KEY = "captioner training state"
_RECORDED = {"epoch", "stage", "train_loss", "loss", "bleu_4", "cider", "samples"}  # of each epoch, at least


@dataclass
class Progress:
    """Where a run stands."""

    fingerprint: str  # of the options and the data: a state fits no other run
    ranks: int = 1  # processes that train together
    stage: int = 0  # number of the stage
    epoch: int = 0  # whole epochs done in this stage
    step: int = 0  # steps done in the epoch after those
    loss_sum: float = 0.0  # over these steps, of Losses.captions
    reward_sum: float = 0.0
    best: float = -1.0  # validation score of the checkpoint that the run holds
    best_row: int = -1  # its place in `rows`, one an epoch
    entry: float = -1.0  # that of the checkpoint when this stage began
    stage_best: float = -1.0  # of the epochs of this stage
    since: int = 0  # epochs since then
    stopped_early: bool = False  # whether this stage is over before its last epoch
    rows: list[dict[str, Any]] = field(default_factory=list)  # of all stages: what metrics.jsonl holds


def save_state(folder: Path, progress: Progress, tensors: dict[str, Tensor]) -> None:
    """Replace the state in a run folder. Raises OSError; the state before is then still there."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(whole, metadata={_KEY: json.dumps(asdict(progress))})
    with replacing(folder / STATE_NAME, "wb") as file:
        file.write(data)


def load_state(folder: Path) -> tuple[Progress, dict[str, Tensor]]:
    """The state in a run folder. Raises TrainingError when there is none, or none that can be used."""
    path = folder / STATE_NAME
    if not path.is_file():
        raise TrainingError(f"{folder}: holds no run to go on with: leave out --resume to begin one")
    try:
        with safe_open(path, framework="pt") as file:
            progress = _progress(json.loads((file.metadata() or {})[_KEY]))
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no dict)
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} holds values that are not numbers")
        return progress, tensors
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, why: object) -> TrainingError:
    """The error of a state that cannot be used, with what to do."""
    return TrainingError(
        f"{folder / STATE_NAME}: damaged, the run cannot go on: begin another, with --init "
        f"{folder / 'best.safetensors'} to keep what was learned ({one_line(why):.300})"
    )


def _progress(content: dict[str, Any]) -> Progress:
    """What the header says. Raises an error for what is no progress at all."""
    progress = Progress(**content)
    for name, default in asdict(Progress("")).items():
        value = getattr(progress, name)
        if type(value) is not type(default) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{name} {value!r:.80}")
    if min(progress.ranks - 1, progress.stage, progress.epoch, progress.step, progress.best_row + 1) < 0:
        raise ValueError("a count below 0")
    if progress.best_row >= len(progress.rows) or not all(row.keys() >= _RECORDED for row in progress.rows):
        raise ValueError("the epochs are not all there")
    return progress
