"""Records of a training run for people: metrics.jsonl, curves.png, reliability.png and samples.html."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.errors import to_install
from captioner.files import replacing
from captioner.templates import render
from captioner.training.calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE = "#0072b2", "#d55e00"


def write_metrics(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object per epoch."""
    with replacing(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def cannot_draw() -> str:
    """Why there will be no curves.png and no reliability.png; empty where there will be."""
    no_plots = "matplotlib is not installed, so curves.png and reliability.png are not drawn"
    return "" if find_spec("matplotlib") else f"{no_plots}: {to_install('train')}"


def write_curves(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draw losses and validation scores over the epochs of all stages, as a PNG, if matplotlib is installed."""
    if cannot_draw():
        return
    from matplotlib.ticker import MaxNLocator

    # The last stage leaves captions as they are, and its loss is another one.
    matching = [{**row, **row["picture_by_sentence"]} for row in rows if "picture_by_sentence" in row]
    writing = [row for row in rows if "picture_by_sentence" not in row]
    losses = {"train_loss": "training, with dropout and smoothed labels", "loss": "validation"}
    panels = [
        ("Cross-entropy per token", writing, losses),
        ("Validation scores", writing, {"cider": "CIDEr-D", "bleu_4": "BLEU-4"}),
        ("Pictures found by their captions, %", matching, {"r1": "first", "r10": "among the first ten"}),
    ]
    panels = [panel for panel in panels if panel[1]]
    with _plots(path, len(panels), (5 * len(panels), 4)) as plots:
        for axes, (title, shown, lines) in zip(plots, panels, strict=True):
            for (name, label), style, colour in zip(lines.items(), ("o-", "s-"), (_BLUE, _ORANGE), strict=True):
                values = [row[name] for row in shown]
                axes.plot([row["epoch"] for row in shown], values, style, ms=3, color=colour, label=label)
            axes.set(title=title, xlabel="epoch", **({} if "loss" in lines else {"ylim": (0, None)}))
            for row, before in zip(shown[1:], shown[:-1], strict=True):
                if row["stage"] != before["stage"]:
                    x, across = row["epoch"] - 0.5, ("data", "axes fraction")
                    axes.axvline(x, color="#888", lw=1, ls=":")
                    axes.annotate(row["stage"], (x, 0.5), xycoords=across, rotation=90, color="#555")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def write_reliability(path: Path, before: Calibration, after: Calibration) -> None:
    """Draw how often words of each probability were right, before and after calibration, as `write_curves` draws."""
    if cannot_draw():
        return
    with _plots(path, 1, (5, 4.5), legend="upper left") as [axes]:
        axes.plot([0, 100], [0, 100], color="#888", lw=1, ls=":", label="perfect calibration")
        as_trained = [("as trained", before, "s-", _ORANGE)] if before != after else []
        for label, found, style, colour in [*as_trained, ("as stored", after, "o-", _BLUE)]:
            x, y, shares = ([100 * v for v in values] for values in (found.confidence, found.accuracy, found.share))
            axes.plot(x, y, style, ms=4, color=colour, label=f"{label}: off by {found.error:.1f} points")
        axes.bar(x, shares, width=4, color=_BLUE, alpha=0.2, label="share of all words")  # as stored
        axes.set(xlabel="probability of the most likely next word, %", ylabel="how often it was right, %")
        axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")


@contextmanager
def _plots(path: Path, number: int, size: tuple[float, float], legend: str = "best") -> Iterator[Sequence[Axes]]:
    """A number of axes beside each other, to be drawn in; when the block ends, they are written as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    plots = figure.subplots(1, number, squeeze=False)[0]
    yield plots
    for axes in plots:
        axes.grid(color="#ddd", lw=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc=legend)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    with replacing(path, "wb") as file:
        file.write(buffer.getvalue())


def write_samples(path: Path, pictures: Sequence[tuple[str, str | None, str]], rows: Sequence[dict[str, Any]]) -> None:
    """Show some validation pictures with their captions after each epoch and one of a person, as an HTML page.

    `pictures` are names, thumbnails and references; `rows[e]["samples"][i]` is the caption of picture i after epoch e.
    """
    cards = []
    for index, (name, thumbnail, reference) in enumerate(pictures):
        captions = [(row["epoch"], row["samples"][index]) for row in rows]
        changes = [next(same) for _, same in groupby(captions, itemgetter(1))]
        cards.append({"name": name, "thumbnail": thumbnail, "reference": reference, "changes": changes})
    with replacing(path) as file:
        file.writelines(render("samples.html", cards=cards, epochs=len(rows)))
