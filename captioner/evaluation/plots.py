"""Bar charts as inline SVG: text that a page can hold, with no library behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

# In the units of the drawing, which a page shows at about their size on a phone.
_WIDTH, _HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 6, 8, 34
_LABELS = 12  # at most, so that they do not touch


def bar_chart(
    labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], x_label: str, unit: str = ""
) -> str:
    """Bars from 0, one group a label, one bar a series (name, values); the colours are `--series-0` and so on.

    `unit` follows the values in the text that appears over a bar. Raises ValueError for series of another length.
    """
    if any(len(values) != len(labels) for _, values in series):
        raise ValueError("each series needs one value a label")
    top, step = _scale(max((value for _, values in series for value in values), default=0.0))
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    group = plot_width / max(1, len(labels))
    bar = 0.84 * group / len(series)
    parts = []
    for index in range(round(top / step) + 1):
        value = index * step
        y = _TOP + plot_height * (1 - value / top)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    every = math.ceil(len(labels) / _LABELS)
    for place, label in enumerate(labels):
        left = _LEFT + place * group
        for number, (name, values) in enumerate(series):
            height = plot_height * values[place] / top
            what = f"{label}: {values[place]:.1f}{unit}" + (f" ({name})" if len(series) > 1 else "")
            parts.append(
                f'<rect x="{left + 0.08 * group + number * bar:.1f}" y="{_TOP + plot_height - height:.1f}" '
                f'width="{bar:.1f}" height="{height:.1f}" fill="var(--series-{number})">'
                f"<title>{escape(what)}</title></rect>"
            )
        if place % every == 0:
            middle = left + group / 2
            parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 20}" text-anchor="middle">{escape(label)}</text>')
    middle = _LEFT + plot_width / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(x_label)}">{"".join(parts)}</svg>'


def _scale(highest: float) -> tuple[float, float]:
    """The top of the axis and the step of its lines: 3 to 5 of them, at round values."""
    if highest <= 0:
        return 1.0, 0.5
    magnitude = 10.0 ** math.floor(math.log10(highest / 4))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if highest / (magnitude * factor) <= 4)
    return step * math.ceil(highest / step), step
