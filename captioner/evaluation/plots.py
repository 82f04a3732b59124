"""Bar charts as inline SVG, drawn by a template."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from captioner.templates import render


def bar_chart(
    labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], x_label: str, unit: str = ""
) -> Markup:
    """Bars for one or several series (name, values), grouped by label; their colours are `--series-0` and so on.

    `unit` follows the value in the tooltip of a bar. Raises ValueError if a series has not one value for each label.
    """
    if any(len(values) != len(labels) for _, values in series):
        raise ValueError("each series needs one value a label")
    top, step = _scale(max((value for _, values in series for value in values), default=0.0))
    chart = {"labels": labels, "series": series, "x_label": x_label, "unit": unit, "top": top, "step": step}
    return Markup("".join(render("chart.svg", **chart)))  # the template escapes


def _scale(highest: float) -> tuple[float, float]:
    """The top of the axis and the distance of its 3 to 5 lines, at round values."""
    if highest <= 0:
        return 1.0, 0.5
    magnitude = 10.0 ** math.floor(math.log10(highest / 4))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if highest / (magnitude * factor) <= 4)
    return step * math.ceil(highest / step), step
