"""What is said of captions before training."""

from __future__ import annotations

import pytest

from captioner.data.survey import vocabulary_sizes


def test_vocabulary_sizes_by_hand() -> None:
    train = [["a", "dog", "runs"], ["a", "dog"], ["a", "cat"]]  # a 3, dog 2, runs 1, cat 1
    validation = [["a", "cat", "sits", "dog"]]
    rows = vocabulary_sizes(train, validation, (1, 2, 3))
    assert [(row.minimum_count, row.size) for row in rows] == [(1, 8), (2, 6), (3, 5)]
    assert [row.unknown_train for row in rows] == pytest.approx([0, 2 / 7, 4 / 7])
    assert [row.unknown_validation for row in rows] == pytest.approx([1 / 4, 1 / 2, 3 / 4])
    assert vocabulary_sizes(train, [], (1,))[0].unknown_validation == 0
