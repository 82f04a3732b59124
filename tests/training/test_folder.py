"""The resumable state comes back whole, or is refused with what to do."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from captioner.errors import TrainingError
from captioner.training.folder import STATE_NAME, Standing, load_state, save_state

ROW = {"epoch": 1, "stage": "x", "train_loss": 2.5, "loss": 2.0, "bleu_4": 1.0, "cider": 3.0, "samples": ["狗"]}


def test_a_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2).t(), "b": torch.tensor(7)}
    standing = Standing("abc", stage=1, step=3, loss_sum=0.1 + 0.2, rows=[ROW])
    save_state(tmp_path, standing, tensors)
    again, loaded = load_state(tmp_path)
    assert again == standing
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("damage", ["empty", "cut", "foreign", "not JSON"])
def test_a_damaged_state_is_refused_with_what_to_do(tmp_path: Path, damage: str) -> None:
    file = tmp_path / STATE_NAME
    save_state(tmp_path, Standing("abc"), {"a": torch.randn(100)})
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-7])
    else:
        metadata = {"captioner training state": "{"} if damage == "not JSON" else None
        save_file({"a": torch.randn(3)}, file, metadata)
    with pytest.raises(TrainingError, match=r"state\.safetensors: damaged.*--init"):
        load_state(tmp_path)


def test_no_state_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="leave out --resume"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "x"},
        {"stage": -1},
        {"stage": True},
        {"epoch": 1.5},
        {"step": -3},
        {"best": float("nan")},
        {"best_row": 5},
        {"rows": [3]},
        {"rows": [{"epoch": 1}]},
        {"unknown": 1},
        "[" * 100_000,
    ],
    ids=lambda change: str(change)[:20],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, change: dict[str, Any] | str) -> None:
    content = {**asdict(Standing("abc", rows=[ROW])), **(change if isinstance(change, dict) else {})}
    text = json.dumps(content) if isinstance(change, dict) else change
    save_file({"a": torch.randn(3)}, tmp_path / STATE_NAME, {"captioner training state": text})
    with pytest.raises(TrainingError, match=r"state\.safetensors: damaged.*--init"):
        load_state(tmp_path)


def test_values_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    save_state(tmp_path, Standing("abc"), {"a": torch.tensor([1.0, float("nan")])})
    with pytest.raises(TrainingError, match="a holds values that are not numbers"):
        load_state(tmp_path)
