"""Reliability and what is left when only the surest captions speak, by hand."""

from __future__ import annotations

import pytest

from captioner.evaluation.reliability import reliability
from captioner.evaluation.scores import ScoredCaption, score_pictures

REFERENCES = {f"{n}.jpg": ["dog runs fast", "cat"] for n in range(4)}
CAPTIONS = {"0.jpg": "dog runs fast", "1.jpg": "dog runs slowly", "2.jpg": "dog and man", "3.jpg": "green"}


@pytest.fixture
def pictures() -> tuple[ScoredCaption, ...]:
    return score_pictures(CAPTIONS, REFERENCES).pictures


def test_support_needs_no_confidence(pictures: tuple[ScoredCaption, ...]) -> None:
    found = reliability(pictures, "word", {})
    assert found == pytest.approx({"support": 100 * (1 + 2 / 3 + 1 / 3) / 4, "right": 50.0, "human_support": 0.0})
    assert reliability(pictures, "word", {"0.jpg": (0.5, 1.0)}) == found  # not of all pictures


def test_the_surest_come_first(pictures: tuple[ScoredCaption, ...]) -> None:
    sure = {"0.jpg": (0.9, 1.0), "1.jpg": (0.6, 1.0), "2.jpg": (0.5, 1.0), "3.jpg": (0.2, 1.0)}
    found = reliability(pictures, "word", sure)
    assert found["bins"] == [(20.0, 0.0), (50.0, 0.0), (60.0, 100.0), (90.0, 100.0)]
    assert found["error"] == pytest.approx((20 + 50 + 40 + 10) / 4)
    surest = {share: (support, right) for share, support, right in found["surest"]}
    assert surest[25.0] == (100.0, 100.0)
    assert surest[50.0] == pytest.approx((100 * (1 + 2 / 3) / 2, 100.0))
    assert surest[100.0] == pytest.approx((found["support"], 50.0))
