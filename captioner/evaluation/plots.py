"""Bar charts as inline SVG, drawn without a library."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

# In units of the drawing; on a phone, one is about one pixel.
_WIDTH, _HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 6, 8, 34
_LABELS = 12  # at most, so that they do not overlap

_GRID = Markup('<path class="grid" d="M{} {:.1f}H{}"/>')
_TEXT = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
_BAR = Markup(
    '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="var(--series-{})"><title>{}</title></rect>'
)
_CHART = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')


def bar_chart(
    labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], x_label: str, unit: str = ""
) -> Markup:
    """Bars for one or several series (name, values), grouped by label; their colours are `--series-0` and so on.

    `unit` follows the value in the tooltip of a bar. Raises ValueError if a series has not one value for each label.
    """
    if any(len(values) != len(labels) for _, values in series):
        raise ValueError("each series needs one value a label")
    top, step = _scale(max((value for _, values in series for value in values), default=0.0))
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    group = plot_width / max(1, len(labels))
    bar = 0.84 * group / len(series)
    parts = []
    for index in range(round(top / step) + 1):
        y = _TOP + plot_height * (1 - index * step / top)
        parts.append(_GRID.format(_LEFT, y, _WIDTH - _RIGHT))
        parts.append(_TEXT.format(_LEFT - 4, f"{y + 4:.1f}", "end", f"{index * step:g}"))
    every = math.ceil(len(labels) / _LABELS)
    for place, label in enumerate(labels):
        left = _LEFT + place * group
        for number, (name, values) in enumerate(series):
            height = plot_height * values[place] / top
            x, y = left + 0.08 * group + number * bar, _TOP + plot_height - height
            tooltip = f"{label}: {values[place]:.1f}{unit}" + (f" ({name})" if len(series) > 1 else "")
            parts.append(_BAR.format(x, y, bar, height, number, tooltip))
        if place % every == 0:
            parts.append(_TEXT.format(f"{left + group / 2:.1f}", _HEIGHT - 20, "middle", label))
    parts.append(_TEXT.format(f"{_LEFT + plot_width / 2:.1f}", _HEIGHT - 4, "middle", x_label))
    return _CHART.format(_WIDTH, _HEIGHT, x_label, Markup().join(parts))


def _scale(highest: float) -> tuple[float, float]:
    """The top of the axis and the distance of its 3 to 5 lines, at round values."""
    if highest <= 0:
        return 1.0, 0.5
    magnitude = 10.0 ** math.floor(math.log10(highest / 4))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if highest / (magnitude * factor) <= 4)
    return step * math.ceil(highest / step), step
