"""A network that cannot be is refused, and what training decides has no second default."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from captioner.network.config import ModelConfig
from captioner.training.config import TrainConfig

POSSIBLE = ModelConfig("resnet18", 10, hidden_size=4, embedding_size=3, dropout=0.0, cell="gru", layers=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocabulary_size": 0}, "vocabulary_size must be at least 1, not 0"),
        ({"hidden_size": 0}, "hidden_size must be at least 1"),
        ({"embedding_size": -3}, "embedding_size must be at least 1"),
        ({"layers": 0}, "layers must be at least 1, not 0"),
        *(({name: -1}, f"{name} must be at least 0, not -1") for name in ("words", "names", "links")),
        ({"word_inputs": True}, "word_inputs needs words or names, and manner needs word_inputs"),
        ({"words": 3, "manner": True}, "word_inputs needs words or names, and manner needs word_inputs"),
        ({"hidden_scale": 0.0}, "hidden_scale must be above 0 and at most 100"),
        ({"hidden_scale": math.nan}, "hidden_scale must be above 0 and at most 100"),
        ({"evidence": 5.1}, "evidence must be from 0 to 5"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1"),
        ({"dropout": -0.1}, "dropout must be from 0 to below 1"),
        ({"dropout": math.nan}, "dropout must be from 0 to below 1"),
        *(
            ({"cell": cell}, f"cell must be one of lstm, gru, rnn, rnn-relu, peephole, not '{cell}'")
            for cell in ("LSTM", "", "elman")
        ),
    ],
    ids=str,
)
def test_an_impossible_network_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(POSSIBLE, **fields)


def test_what_training_decides_has_its_default_there_alone() -> None:
    fields = {field.name: field for field in dataclasses.fields(ModelConfig)}
    # Cells as textbooks have them, and no predicted words: what a network of an older checkpoint is like.
    plain = {name for name, field in fields.items() if field.default is not dataclasses.MISSING}
    of_words = {"words", "names", "links", "word_inputs", "manner", "evidence"}
    assert plain == {"hidden_scale", "linear_memory", *of_words, "match_size"}
    assert fields.keys() - {"vocabulary_size"} - plain <= {f.name for f in dataclasses.fields(TrainConfig)}
