"""The end of a run chooses how much the words that are found in pictures count."""

from __future__ import annotations

from typing import Any

import pytest
from network.checkpoint_files import with_words

from captioner.network.checkpoint import Checkpoint
from captioner.training.finish import weigh_evidence


class Told:
    """A validation that has a score for each weight of the evidence."""

    def __init__(self, scores: dict[float, float]) -> None:
        self._scores = scores

    def scores(self, checkpoint: Checkpoint) -> dict[str, Any]:
        weight = checkpoint.model.config.evidence
        return {"cider": self._scores[weight], "weight": weight}


@pytest.mark.parametrize(
    ("scores", "weight"),
    [({0.0: 1, 0.5: 2, 1.0: 3}, 1.0), ({0.0: 1, 0.5: 3, 1.0: 2}, 0.5), ({0.0: 1, 0.5: 1, 1.0: 1}, 0)],
)
def test_the_weight_with_the_best_score_is_kept(
    tiny_checkpoint: Checkpoint, scores: dict[float, float], weight: float
) -> None:
    checkpoint = with_words(tiny_checkpoint)
    found = weigh_evidence(checkpoint, Told(scores))  # type: ignore[arg-type]
    assert (found["weight"], checkpoint.model.config.evidence) == (weight, weight)


def test_without_predicted_words_there_is_nothing_to_choose(tiny_checkpoint: Checkpoint) -> None:
    weigh_evidence(tiny_checkpoint, Told({0.0: 1.0}))  # type: ignore[arg-type]
    assert tiny_checkpoint.model.config.evidence == 0.0
