"""Where a run stands, and the file from which `--resume` continues."""

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

from captioner.errors import OutputError, TrainingError, one_line
from captioner.files import replacing

CHECKPOINT_NAME = "best.safetensors"
CONFIG_NAME = "config.json"
STATE_NAME = "state.safetensors"
_KEY = "captioner training state"
_RECORDED = {"epoch", "stage", "train_loss", "loss", "bleu_4", "cider", "samples"}  # in each row, at least


@dataclass
class Standing:
    """Where a run stands."""

    fingerprint: str  # of options, data and first weights: a state fits no other run
    ranks: int = 1  # processes that train together
    threads: int = 1  # of torch in each of them; sums, and so the last bits of weights, depend on both
    stage: int = 0  # number of the stage
    epoch: int = 0  # finished epochs of this stage
    step: int = 0  # finished steps of the current epoch
    loss_sum: float = 0.0  # of Losses.captions over these steps
    reward_sum: float = 0.0
    best: float = -1.0  # validation score of the checkpoint in the folder
    best_row: int = -1  # its place in `rows`
    entry: float = -1.0  # `best` when this stage began
    stage_best: float = -1.0  # best score of this stage
    since: int = 0  # epochs since then
    stopped_early: bool = False  # whether this stage is over before its last epoch
    rows: list[dict[str, Any]] = field(default_factory=list)  # one for each epoch of all stages, as in metrics.jsonl

    def check(self) -> None:
        """Raise ValueError or another error for values that make no sense."""
        for name, default in asdict(Standing("")).items():
            value = getattr(self, name)
            if type(value) is not type(default) or (isinstance(value, float) and not math.isfinite(value)):
                raise ValueError(f"{name} {value!r:.80}")
        if min(self.ranks - 1, self.threads - 1, self.stage, self.epoch, self.step, self.best_row + 1) < 0:
            raise ValueError("a count below 0")
        if self.best_row >= len(self.rows) or not all(row.keys() >= _RECORDED for row in self.rows):
            raise ValueError("epochs are missing")

    def enter_stage(self) -> None:
        """Stand at the beginning of a stage."""
        self.epoch = self.step = self.since = 0
        self.loss_sum = self.reward_sum = 0.0
        self.entry, self.stage_best, self.stopped_early = self.best, -1.0, False

    def end_epoch(self, row: dict[str, Any], score: float, patience: float, epochs: int) -> bool:
        """Take in an epoch of a stage of so many epochs, and tell whether the checkpoint is to be replaced by it."""
        self.rows.append(row)
        self.epoch += 1
        self.step, self.loss_sum, self.reward_sum = 0, 0.0, 0.0
        self.since = 0 if score > self.stage_best else self.since + 1
        self.stage_best = max(score, self.stage_best)
        self.stopped_early = self.since >= max(1, math.ceil(patience * epochs))
        # At the end of a stage the learning rate is zero and weights are averaged: an earlier epoch with a slightly
        # better score was lucky. A stage that made nothing better changes nothing.
        is_best = score > self.best or (self.epoch == epochs and score >= self.entry)
        if is_best:
            self.best, self.best_row = score, len(self.rows) - 1
        return is_best


def save_state(folder: Path, standing: Standing, tensors: dict[str, Tensor]) -> None:
    """Replace the state in a run folder. Raises OSError, and then the state before is kept."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(whole, metadata={_KEY: json.dumps(asdict(standing))})
    with replacing(folder / STATE_NAME, "wb") as file:
        file.write(data)


def load_state(folder: Path) -> tuple[Standing, dict[str, Tensor]]:
    """The state in a run folder. Raises TrainingError when there is none, or when it is damaged."""
    path = folder / STATE_NAME
    if not path.is_file():
        raise nothing_there(folder)
    try:
        with safe_open(path, framework="pt") as file:
            standing = Standing(**json.loads((file.metadata() or {})[_KEY]))
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no dict)
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} holds values that are not numbers")
        standing.check()
        return standing, tensors
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(folder, error) from error


def refuse_other(folder: Path, found: Standing, now: Standing) -> None:
    """Raise OutputError when the state that was found cannot be continued by the run that stands here now."""
    if found.fingerprint != now.fingerprint:
        raise OutputError(
            f"{folder}: the run there has other options or other data: give the same as then (see "
            f"{folder / 'config.json'}), or another --output"
        )
    if found.ranks != now.ranks:
        were, are = ("one process" if n == 1 else f"{n} processes" for n in (found.ranks, now.ranks))
        raise OutputError(
            f"{folder}: this run was trained by {were} so far, and {are} would give another result: start as many as "
            "then, with torchrun --nproc-per-node"
        )


def nothing_there(folder: Path) -> TrainingError:
    """The error for a folder without a run, or whose run does not say what it was given."""
    return TrainingError(f"{folder}: there is no run to resume here: leave out --resume to begin one")


def damaged(folder: Path, why: object) -> TrainingError:
    """The error for a state that cannot be used."""
    return TrainingError(
        f"{folder / STATE_NAME}: damaged, this run cannot be resumed: begin another one, with --init "
        f"{folder / CHECKPOINT_NAME} to keep what was learned ({one_line(why):.300})"
    )
