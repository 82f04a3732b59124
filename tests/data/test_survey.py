"""What is said of captions before training."""

from __future__ import annotations

import math

import pytest

from captioner.data.survey import histogram, strangeness, vocabulary_sizes


def test_vocabulary_sizes_by_hand() -> None:
    train = [["a", "dog", "runs"], ["a", "dog"], ["a", "cat"]]  # a 3, dog 2, runs 1, cat 1
    validation = [["a", "cat", "sits", "dog"]]
    rows = vocabulary_sizes(train, validation, (1, 2, 3))
    assert [(row.minimum_count, row.size) for row in rows] == [(1, 8), (2, 6), (3, 5)]
    assert [row.unknown_train for row in rows] == pytest.approx([0, 2 / 7, 4 / 7])
    assert [row.unknown_validation for row in rows] == pytest.approx([1 / 4, 1 / 2, 3 / 4])
    assert vocabulary_sizes(train, [], (1,))[0].unknown_validation == 0


def test_strangeness_by_hand() -> None:
    # Of the other caption: "a" once, its end once; "a" begins it and its end follows "a", always.
    # 2 tokens, and one more of each of 2 and of an unknown one: the unigram probability of either is 2/5.
    assert strangeness([["a"], ["a"]]) == pytest.approx([-math.log2(0.7 + 0.3 * 2 / 5)] * 2)
    # "b" was never seen: 1/5 of the unigrams, none of the bigrams. Then the end, in an unseen context.
    one, _ = strangeness([["b"], ["a"]])
    assert one == pytest.approx(-(math.log2(0.3 * 1 / 6) + math.log2(0.3 * 2 / 6)) / 2)


def test_the_caption_that_nobody_else_would_write_is_the_strangest() -> None:
    usual = [f"a {colour} dog {verb}".split() for colour in ("red", "big", "wet") for verb in ("runs", "sits", "eats")]
    odd = ["zebra", "quorum", "esoteric"]
    bits = strangeness([*usual, odd, *usual])
    assert max(bits) == bits[len(usual)]
    shuffled = strangeness([*usual, ["runs", "dog", "red", "a"]])
    assert max(shuffled) == shuffled[-1], "the order of the words counts"
    assert strangeness([*usual, []])[-1] > 0, "nothing is strange, too"


def test_the_histogram_counts_all_and_draws_the_most_frequent_longest() -> None:
    lines = histogram([3] * 10 + [4] * 40 + [5] * 50 + [99], bars=12, width=20)
    assert [line.split()[0] for line in lines] == ["3", "4", "5-99"]
    assert [line.count("#") for line in lines] == [4, 16, 20]
    assert sum(float(line.split()[-2]) for line in lines) == pytest.approx(100, abs=0.2)
    wide = histogram(list(range(100)), bars=10)
    assert [line.split()[0] for line in wide][:2] == ["0-9", "10-19"]
    assert histogram([7])[0].split()[0] == "7"
