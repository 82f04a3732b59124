"""What a network is made of; apart from the network, so that a checkpoint's header can be read without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from captioner.options import CELLS


@dataclass(frozen=True)
class Trust:
    """What a checkpoint's word is worth, as it was measured on validation pictures at the end of training.

    `confidence` and `familiar` are the weights of two logistic functions, the last one the constant: see
    `inference/trust.py` for their inputs. `words` are scale and shift of the logits of predicted words, which become
    tags. Captions from `min_confidence` and `min_familiar` on are the default operating point. Raises ValueError.
    """

    confidence: tuple[float, ...]
    familiar: tuple[float, ...]
    words: tuple[float, float]
    min_confidence: float
    min_familiar: float

    def __post_init__(self) -> None:
        for name, size in (("confidence", 4), ("familiar", 4), ("words", 2)):
            values = getattr(self, name)
            if len(values) != size or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
                raise ValueError(f"trust: {name} must be {size} finite numbers")
        for name in ("min_confidence", "min_familiar"):
            if type(getattr(self, name)) not in (int, float) or not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"trust: {name} must be from 0 to 1")


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the function and the shapes of a CaptionModel. Raises ValueError for impossible values.

    `cell` is one of CELLS. In training, `dropout` is the share of units that are dropped between layers; half of it is
    the share of features that are dropped. `hidden_scale` multiplies the hidden states before the output layer, and
    with `linear_memory` the first memory cell is a linear function of the feature: docs/recurrent-networks.md tells
    why cells with a memory need both. `words`, `names` and `links` are sizes of the word predictor, `network/words.py`,
    whose probabilities the decoder sees beside the feature if `word_inputs`. With `manner` it learned to speak in two
    manners: that of the captions of its pictures, and that of other captions. `evidence` is the weight of the predicted
    words in decoding, where the options do not give another. `match_size` is the size of the space in which sentences
    find pictures: see `network/matcher.py`; with 0 it has none.
    """

    encoder: str
    vocabulary_size: int
    hidden_size: int
    embedding_size: int
    dropout: float
    cell: str
    layers: int
    hidden_scale: float = 1.0
    linear_memory: bool = False
    words: int = 0
    names: int = 0
    links: int = 0
    word_inputs: bool = False
    manner: bool = False
    evidence: float = 0.0
    match_size: int = 0

    @property
    def match_hidden(self) -> int:
        """The size of the matcher's hidden states in each direction: both together are as wide as the decoder's."""
        return (self.hidden_size + 1) // 2

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, not {self.cell!r}")
        for name in ("vocabulary_size", "hidden_size", "embedding_size", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("words", "names", "links", "match_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if (self.word_inputs and not self.words + self.names) or (self.manner and not self.word_inputs):
            raise ValueError("word_inputs needs words or names, and manner needs word_inputs")
        if not 0.0 < self.hidden_scale <= 100.0:
            raise ValueError(f"hidden_scale must be above 0 and at most 100, not {self.hidden_scale}")
        if not 0.0 <= self.evidence <= 5.0:
            raise ValueError(f"evidence must be from 0 to 5, not {self.evidence}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be from 0 to below 1, not {self.dropout}")
