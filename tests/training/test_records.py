"""What a run leaves to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioner.training.calibration import Calibration
from captioner.training.records import write_curves, write_metrics, write_reliability, write_samples


def rows(count: int = 4) -> list[dict[str, Any]]:
    captions = ["A dog", "A dog", "A <b>cat</b>", "一只狗"]
    return [
        {
            "epoch": epoch + 1,
            "stage": "decoder" if epoch < 3 else "end to end",
            "train_loss": 4.0 - epoch,
            "loss": 4.5 - epoch,
            "cider": 10.0 * epoch,
            "bleu_4": 5.0 * epoch,
            "samples": [captions[epoch], "The same"],
        }
        for epoch in range(count)
    ]


def test_metrics_are_one_json_object_an_epoch(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.jsonl", rows())
    assert [
        json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ] == rows()


def test_curves_are_a_picture_that_changes_with_the_scores(tmp_path: Path) -> None:
    for name, count in (("one", 1), ("four", 4)):
        write_curves(tmp_path / name, rows(count))
    with Image.open(tmp_path / "one") as one, Image.open(tmp_path / "four") as four:
        assert one.format == four.format == "PNG"
        assert min(one.size) >= 400
        assert one.tobytes() != four.tobytes()


def test_curves_of_matching_have_a_place_of_their_own(tmp_path: Path) -> None:
    """Their loss is another one, and captions do not change."""
    last = rows()[-1]
    found = [
        {**last, "epoch": 5 + n, "stage": "matching", "picture_by_sentence": {"r1": n, "r10": 9.0}} for n in (0, 1)
    ]
    shown = {"captions": rows(), "both": [*rows(), *found], "matching": found}
    for name, content in shown.items():
        write_curves(tmp_path / name, content)
    pictures = {name: Image.open(tmp_path / name).convert("RGB") for name in shown}
    panel = pictures["matching"].width
    assert pictures["captions"].width == pytest.approx(2 * panel, abs=2)
    assert pictures["both"].width == pytest.approx(3 * panel, abs=2)
    write_curves(tmp_path / "far", [*rows(), *({**row, "train_loss": 1e6} for row in found)])
    assert Image.open(tmp_path / "far").convert("RGB").tobytes() == pictures["both"].tobytes()


def test_samples_show_each_caption_once_and_as_text(tmp_path: Path) -> None:
    pictures = [("a.jpg", "data:image/jpeg;base64,xyz", "My <dog>"), ("<i>.jpg", None, "Mine")]
    write_samples(tmp_path / "samples.html", pictures, rows())
    page = (tmp_path / "samples.html").read_text(encoding="utf-8")
    assert page.count("<td>A dog</td>") == 1  # the second epoch changed nothing
    assert page.count("<td>The same</td>") == 1
    assert "一只狗" in page
    assert "A &lt;b&gt;cat&lt;/b&gt;" in page
    assert "&lt;i&gt;.jpg" in page
    assert page.count("<img") == 1
    assert page.count("<td>My &lt;dog&gt;</td>") == 1


def test_reliability_is_a_picture_that_shows_what_was_mended(tmp_path: Path) -> None:
    sure, right = (Calibration((0.3, 0.8), accuracy, (0.4, 0.6), 10.0) for accuracy in ((0.2, 0.7), (0.3, 0.8)))
    write_reliability(tmp_path / "mended", sure, right)
    write_reliability(tmp_path / "as it was", right, right)
    with Image.open(tmp_path / "mended") as one, Image.open(tmp_path / "as it was") as other:
        assert one.format == other.format == "PNG"
        assert one.tobytes() != other.tobytes()
