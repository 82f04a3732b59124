"""Bar charts: as high as their values, whole and safe as XML."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree

import pytest

from captioner.evaluation.plots import _scale, bar_chart


def bars(svg: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(svg).findall("rect")


def test_bars_are_as_high_as_their_values() -> None:
    first, second, none = (float(bar.get("height", "")) for bar in bars(bar_chart("abc", [("x", [10, 5, 0])], "x")))
    assert first == pytest.approx(2 * second, abs=0.2)
    assert none == 0
    assert first > 100


def test_bars_stand_on_one_line_and_beside_each_other() -> None:
    drawn = bars(bar_chart("ab", [("x", [1, 2]), ("y", [3, 4])], "words"))
    feet = {round(float(bar.get("y", "")) + float(bar.get("height", "")), 0) for bar in drawn}
    assert len(feet) == 1
    spans = sorted((float(bar.get("x", "")), float(bar.get("width", ""))) for bar in drawn)
    assert all(left + width <= right + 0.11 for (left, width), (right, _) in itertools.pairwise(spans))
    assert [bar.get("fill") for bar in drawn] == ["var(--series-0)", "var(--series-1)"] * 2


def test_hovering_tells_the_value() -> None:
    titles = [bar.findtext("title") for bar in bars(bar_chart(["7"], [("x", [1.25]), ("y", [2])], "words", " %"))]
    assert titles == ["7: 1.2 % (x)", "7: 2.0 % (y)"]


def test_many_labels_are_thinned_out() -> None:
    texts = [
        text.text
        for text in ElementTree.fromstring(bar_chart([f"w{n}" for n in range(50)], [("x", [1] * 50)], "")).findall(
            "text"
        )
    ]
    assert 8 <= sum(str(text).startswith("w") for text in texts) <= 12


def test_text_is_escaped() -> None:
    svg = bar_chart(["<b>"], [("<i>&", [1]), ("y", [1])], '"<u>')
    ElementTree.fromstring(svg)
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "<u>" not in svg


def test_nothing_to_draw_is_no_error() -> None:
    assert bars(bar_chart([], [("x", [])], "x")) == []
    assert [bar.get("height") for bar in bars(bar_chart("a", [("x", [0])], "x"))] == ["0.0"]
    with pytest.raises(ValueError, match="one value a label"):
        bar_chart("ab", [("x", [1])], "x")


@pytest.mark.parametrize("highest", [0.003, 0.9, 1, 3, 8.31, 19.4, 20, 40, 99, 100, 101, 12345])
def test_the_axis_is_round_and_little_higher_than_the_bars(highest: float) -> None:
    top, step = _scale(highest)
    assert highest <= top * (1 + 1e-9)
    assert top <= 2 * highest
    assert 2 <= round(top / step) <= 4
    leading = step / 10.0 ** math.floor(math.log10(step * 1.000001))
    assert any(leading == pytest.approx(round_value) for round_value in (1, 2, 2.5, 5))
