"""What a person looks at while a captioner is trained: metrics.jsonl, curves.png and samples.html."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.files import replacing
from captioner.training.calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_metrics(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One JSON object an epoch."""
    with replacing(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_curves(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Losses and validation scores over the epochs, stages side by side, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, score = figure.subplots(1, 2)
    loss.plot(
        epochs,
        [row["train_loss"] for row in rows],
        "o-",
        ms=3,
        color="#0072b2",
        label="training, with dropout and smoothed labels",
    )
    loss.plot(epochs, [row["loss"] for row in rows], "s-", ms=3, color="#d55e00", label="validation")
    loss.set(title="Cross-entropy a token", xlabel="epoch")
    score.plot(epochs, [row["cider"] for row in rows], "o-", ms=3, color="#0072b2", label="CIDEr-D")
    score.plot(epochs, [row["bleu_4"] for row in rows], "s-", ms=3, color="#d55e00", label="BLEU-4")
    score.set(title="Validation scores", xlabel="epoch", ylim=(0, None))
    begins = [i for i, row in enumerate(rows) if i and row["stage"] != rows[i - 1]["stage"]]
    for axes in (loss, score):
        for index in begins:
            axes.axvline(epochs[index] - 0.5, color="#888", lw=1, ls=":")
            place = (epochs[index] - 0.5, 0.5)
            axes.annotate(rows[index]["stage"], place, xycoords=("data", "axes fraction"), rotation=90, color="#555")
        axes.grid(color="#ddd", lw=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
    _save(path, figure)


def write_reliability(path: Path, before: Calibration, after: Calibration) -> None:
    """How often words given a probability were right, before and after the network was calibrated, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="#888", lw=1, ls=":", label="as it should be")
    shown = [("as trained", before, "s-", "#d55e00")] if before != after else []
    for label, found, style, colour in [*shown, ("as stored", after, "o-", "#0072b2")]:
        points = ([100 * value for value in values] for values in (found.confidence, found.accuracy))
        axes.plot(*points, style, ms=4, color=colour, label=f"{label}: off by {found.error:.1f} points")
    axes.bar(
        [100 * value for value in after.confidence],
        [100 * value for value in after.share],
        width=4,
        color="#0072b2",
        alpha=0.2,
        label="share of all words",
    )
    axes.set(xlabel="probability of the likeliest next word, %", ylabel="how often it was right, %")
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    axes.grid(color="#ddd", lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    _save(path, figure)


def write_samples(path: Path, pictures: Sequence[tuple[str, str | None, str]], rows: Sequence[dict[str, Any]]) -> None:
    """Fixed validation pictures with what a person wrote of them and their captions epoch by epoch, as one HTML page.

    `pictures` are names, thumbnails and references; `rows[e]["samples"][i]` is the caption of picture i after an epoch.
    """
    cards = []
    for index, (name, thumbnail, reference) in enumerate(pictures):
        lines, before = [], None
        for row in rows:
            caption = row["samples"][index]
            # The same caption again is told by its absence.
            if caption != before:
                lines.append(f"<tr><td>{row['epoch']}</td><td>{escape(caption)}</td></tr>")
            before = caption
        lines.append(f'<tr class="person"><td>person</td><td>{escape(reference)}</td></tr>')
        picture = f'<img src="{thumbnail}" alt="{escape(before or name)}">' if thumbnail else ""
        cards.append(f"<section>{picture}<div><h2>{escape(name)}</h2><table>{''.join(lines)}</table></div></section>")
    with replacing(path) as file:
        file.write(_PAGE.format(cards="\n".join(cards), epochs=len(rows)))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Captions while training</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; padding: 0 1rem; }}
section {{ display: flex; flex-wrap: wrap; gap: 1rem; border-top: 1px solid #8886; padding: 1rem 0; }}
h2 {{ font-size: .85rem; font-weight: normal; opacity: .7; margin: 0 0 .3rem; overflow-wrap: anywhere; }}
section > div {{ flex: 1; min-width: 16rem; }}
td {{ vertical-align: top; padding: .1rem .8rem .1rem 0; }}
td:first-child {{ text-align: right; opacity: .6; font-variant-numeric: tabular-nums; }}
.person {{ font-style: italic; }}
</style></head><body>
<h1>Captions while training</h1>
<p>The same validation pictures after each of {epochs} epochs, and what a person wrote.
An epoch that changed nothing is left out.</p>
{cards}
</body></html>
"""


def _save(path: Path, figure: Figure) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    with replacing(path, "wb") as file:
        file.write(buffer.getvalue())
