"""Records of a training run for people: metrics.jsonl, curves.png, reliability.png and samples.html."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.files import replacing
from captioner.templates import render
from captioner.training.calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE = "#0072b2", "#d55e00"


def write_metrics(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object per epoch."""
    with replacing(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_curves(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draw losses and validation scores over the epochs of all stages, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, score = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for axes, name, style, colour, label in (
        (loss, "train_loss", "o-", _BLUE, "training, with dropout and smoothed labels"),
        (loss, "loss", "s-", _ORANGE, "validation"),
        (score, "cider", "o-", _BLUE, "CIDEr-D"),
        (score, "bleu_4", "s-", _ORANGE, "BLEU-4"),
    ):
        axes.plot(epochs, [row[name] for row in rows], style, ms=3, color=colour, label=label)
    loss.set(title="Cross-entropy per token", xlabel="epoch")
    score.set(title="Validation scores", xlabel="epoch", ylim=(0, None))
    begins = [i for i, row in enumerate(rows) if i and row["stage"] != rows[i - 1]["stage"]]
    for axes in (loss, score):
        for index in begins:
            x = epochs[index] - 0.5
            axes.axvline(x, color="#888", lw=1, ls=":")
            axes.annotate(rows[index]["stage"], (x, 0.5), xycoords=("data", "axes fraction"), rotation=90, color="#555")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _finish_axes(axes)
        axes.legend(frameon=False)
    _save(path, figure)


def write_reliability(path: Path, before: Calibration, after: Calibration) -> None:
    """Draw how often words of each probability were right, before and after calibration, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="#888", lw=1, ls=":", label="perfect calibration")
    as_trained = [("as trained", before, "s-", _ORANGE)] if before != after else []
    for label, found, style, colour in [*as_trained, ("as stored", after, "o-", _BLUE)]:
        points = ([100 * value for value in values] for values in (found.confidence, found.accuracy))
        axes.plot(*points, style, ms=4, color=colour, label=f"{label}: off by {found.error:.1f} points")
    x, shares = ([100 * value for value in values] for values in (after.confidence, after.share))
    axes.bar(x, shares, width=4, color=_BLUE, alpha=0.2, label="share of all words")
    axes.set(xlabel="probability of the most likely next word, %", ylabel="how often it was right, %")
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    _finish_axes(axes)
    axes.legend(frameon=False, loc="upper left")
    _save(path, figure)


def write_samples(path: Path, pictures: Sequence[tuple[str, str | None, str]], rows: Sequence[dict[str, Any]]) -> None:
    """Show some validation pictures with their captions after each epoch and one of a person, as an HTML page.

    `pictures` are names, thumbnails and references; `rows[e]["samples"][i]` is the caption of picture i after epoch e.
    """
    cards = []
    for index, (name, thumbnail, reference) in enumerate(pictures):
        captions = [(row["epoch"], row["samples"][index]) for row in rows]
        changes = [now for now, before in zip(captions, [(0, None), *captions], strict=False) if now[1] != before[1]]
        cards.append({"name": name, "thumbnail": thumbnail, "reference": reference, "changes": changes})
    with replacing(path) as file:
        file.writelines(render("samples.html", cards=cards, epochs=len(rows)))


def _finish_axes(axes: Axes) -> None:
    axes.grid(color="#ddd", lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _save(path: Path, figure: Figure) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    with replacing(path, "wb") as file:
        file.write(buffer.getvalue())
