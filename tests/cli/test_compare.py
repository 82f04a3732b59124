"""`captioner compare` as people run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.evaluation.scores import METRICS, score_pictures

Command = Callable[..., tuple[int, str, str]]

REFERENCES = {
    "a.jpg": ["A black dog runs in the snow .", "The dog runs through snow ."],
    "b.jpg": ["A man sits on a bench .", "The man is sitting ."],
    "c.jpg": ["Two girls play with a ball .", "Girls with a ball"],
}
CAPTIONS = {"a.jpg": "A dog runs in the snow", "b.jpg": "A man sits on a bench", "c.jpg": "Two boys play"}


@pytest.fixture
def evaluations(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of `captioner evaluate --json`, of the same pictures."""
    files = tmp_path / "a.json", tmp_path / "b.json"
    for file, captions in zip(files, (CAPTIONS, {name: those[0] for name, those in REFERENCES.items()}), strict=True):
        file.write_text(score_pictures(captions, REFERENCES).to_json())
    return files


def test_compares_two_evaluations(command: Command, evaluations: tuple[Path, Path]) -> None:
    status, out, err = command("compare", *evaluations)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:8]] == list(METRICS.values())
    scores = [[json.loads(file.read_text())[metric] for file in evaluations] for metric in METRICS]
    assert [[cell.strip() for cell in line.split("|")[2:4]] for line in lines[2:8]] == [
        [f"{first:.2f}", f"{second:.2f}"] for first, second in scores
    ]
    assert f"A: {evaluations[0]}" in lines
    assert f"B: {evaluations[1]}" in lines
    assert "paired bootstrap" in out
    assert command("compare", *evaluations)[1] == out, "the same files, the same intervals"


def test_comparing_what_cannot_be_compared(command: Command, evaluations: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "references.txt"
    other.write_text("a.jpg#0\tA dog\n")
    status, out, err = command("compare", other, evaluations[0])
    assert (status, out, err.count("\n")) == (2, "", 1)
    status, out, err = command("compare", tmp_path / "nowhere", evaluations[0])
    assert (status, out) == (2, "")
    assert str(tmp_path / "nowhere") in err
