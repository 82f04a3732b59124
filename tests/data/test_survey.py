"""What is said of captions before training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from captioner.data.shapes import make_shapes
from captioner.data.survey import check_data, vocabulary_sizes
from captioner.errors import DataError, OptionError


def test_vocabulary_sizes_by_hand() -> None:
    train = [["a", "dog", "runs"], ["a", "dog"], ["a", "cat"]]  # a 3, dog 2, runs 1, cat 1
    validation = [["a", "cat", "sits", "dog"]]
    rows = vocabulary_sizes(train, validation, (1, 2, 3))
    assert [(row.minimum_count, row.size) for row in rows] == [(1, 8), (2, 6), (3, 5)]
    assert [row.unknown_train for row in rows] == pytest.approx([0, 2 / 7, 4 / 7])
    assert [row.unknown_validation for row in rows] == pytest.approx([1 / 4, 1 / 2, 3 / 4])
    assert vocabulary_sizes(train, [], (1,))[0].unknown_validation == 0


def test_a_survey_is_plain_data_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    captions, images, train_list, val_list = make_shapes(tmp_path / "shapes", 20, side=32)
    seen: list[int] = []

    def progress(items: Iterable[Any], total: int) -> Iterable[Any]:
        seen.append(total)
        return items

    survey = check_data(str(captions), str(images), train_list=train_list, val_list=val_list, progress=progress)
    assert survey.ok
    assert seen == [20]
    assert (len(survey.files), len(survey.lengths)) == (20, 60)
    assert [row.minimum_count for row in survey.vocabulary] == [1, 2, 3, 4, 5, 10]
    assert (len(survey.train), len(survey.validation)) == (16, 4)
    assert survey.split.how == {"train_list": "train.txt", "val_list": "val.txt"}
    assert capfd.readouterr() == ("", "")

    (images / "shape0001.png").unlink()
    (images / "shape0002.png").write_bytes(b"no picture")
    (images / "extra.png").write_bytes((images / "shape0003.png").read_bytes())
    survey = check_data(captions, images, train_list=train_list, val_list=val_list)
    assert not survey.ok
    assert (survey.missing, survey.without_captions) == (["shape0001.png"], ["extra.png"])
    assert len(survey.unreadable) == 1
    assert str(images / "shape0002.png") in survey.unreadable[0]


def test_the_seed_and_the_minimum_count_are_those_of_training(tmp_path: Path) -> None:
    captions, images, *_ = make_shapes(tmp_path / "shapes", 20, side=32)
    first, second = (check_data(captions, images, seed=seed, minimum_count=7) for seed in (1, 2))
    assert first.split.validation != second.split.validation
    assert [row.minimum_count for row in first.vocabulary] == [1, 2, 3, 4, 5, 7, 10]
    assert sum("<- training's" in line for line in first.lines()) == 1


def test_a_name_of_several_lines_stays_in_its_line(tmp_path: Path) -> None:
    captions, images, *_ = make_shapes(tmp_path / "shapes", 5, side=32)
    (images / "shape0001.png").rename(images / "a\n<b>\x1b[31m.png")
    lines = check_data(captions, images).lines()
    assert "  without captions       1: a <b> [31m.png" in lines
    assert all(line.isprintable() for line in lines)


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    captions, images, _, val_list = make_shapes(tmp_path / "shapes", 5, side=32)
    with pytest.raises(OptionError, match="tokens must be one of auto, word, character, not 'syllable'"):
        check_data(captions, images, tokens="syllable")
    with pytest.raises(OptionError, match=r"val_list \(--val-list\) needs train_list"):
        check_data(captions, images, val_list=val_list)
    with pytest.raises(DataError, match="no such split list"):
        check_data(captions, images, train_list=tmp_path / "nowhere")
