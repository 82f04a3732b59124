"""The options of a run: how many epochs a set gets, and config.json."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from captioner.errors import OptionError
from captioner.training.config import TrainConfig, read_run


def test_a_small_set_gets_more_epochs_unless_their_number_is_given() -> None:
    config = TrainConfig(batch_size=16, finetune_batch_size=24)
    small = config.for_set(captions=144, pictures=48)
    assert (small.epochs, small.finetune_epochs, small.match_epochs) == (math.ceil(800 / 9), 200, math.ceil(200 / 3))
    unset = {"epochs": None, "finetune_epochs": None, "match_epochs": None}
    assert dataclasses.replace(small, **unset) == config
    given = dataclasses.replace(config, epochs=8, finetune_epochs=0, match_epochs=0)
    assert given.for_set(144, 48) == given
    large = config.for_set(14_400, 4800)
    assert (large.epochs, large.finetune_epochs, large.match_epochs) == (6, 12, 20)
    assert config.for_set(0, 0).epochs == 800


def test_the_options_of_a_run_are_read_from_its_config(tmp_path: Path) -> None:
    config = TrainConfig(epochs=3, finetune_epochs=2, cell="rnn")
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"train": dataclasses.asdict(config), "data": {}}))
    assert TrainConfig(**read_run(file)[0]) == config


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", '{"train": 3}', '{"train": null}', "[" * 100_000),
        *('{"train": {}, "given": 3}', '{"train": {}, "given": {"captions": 3}}', '{"train": {}, "given": {"x": "y"}}'),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(OptionError, match=r"config\.json: not the config\.json of a run"):
        read_run(file)


def test_an_option_that_no_longer_exists_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"train": {"seed": 1, "tie_embeddings": false}}')
    with pytest.raises(OptionError, match="this version has no option tie_embeddings: delete it from the file"):
        read_run(tmp_path / "config.json")
