"""The last stage: sentences and pictures learn to meet in one space, so that a sentence finds its pictures.

The encoder and the decoder stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captioner.evaluation.retrieval import DIRECTIONS
from captioner.network.checkpoint import Checkpoint
from captioner.network.matcher import Matcher
from captioner.training.captions import CaptionTokens, batches_by_length, sentences_of
from captioner.training.config import MATCH_BATCH
from captioner.training.losses import Losses
from captioner.training.stages import Stage, named
from captioner.training.start import Material
from captioner.training.validation import Validation
from captioner.vocab import PAD, UNK

SIZE = 256  # of the space
TEMPERATURE = 0.05
_UNREAD = 0.1  # share of the words that are hidden as unknown ones, so that sentences with such words are understood


class MatchStage(Stage):
    """Trains the matcher alone, on features that are computed once.

    In each batch a caption must find its own picture among all pictures, and a picture its own caption among all
    captions: cross-entropy over cosines that are divided by a temperature ("InfoNCE" of van den Oord et al. 2018,
    "Representation learning with contrastive predictive coding"; both ways as Radford et al. 2021, "Learning
    transferable visual models from natural language supervision").
    All ranks compute whole batches, since a pair is compared with all others. There is little to share.
    """

    name, prefix = "matching", "match_"

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.metric = "recall"
        model = material.model
        self._config = replace(model.config, match_size=model.config.match_size or SIZE)
        self.matcher = model.matcher or Matcher(self._config, model.encoder.feature_size).to(material.ranks.device)
        self.weights = [(named("matcher", self.matcher), self.rate)]
        self._rounds = _rounds(material.captions, len(material.paths))
        self.steps = sum(-(-len(rows) // MATCH_BATCH) for rows in self._rounds)
        self._of_captions: dict[str, Any] = {}

    def enter(self) -> None:
        """Make the matcher a part of the model, which it was not while it knew nothing."""
        self.m.model.matcher, self.m.model.config = self.matcher, self._config

    def prepare(self) -> None:
        self._features = self.m.features()

    def batches(self, generator: torch.Generator) -> list[Tensor]:
        lengths = self.m.captions.lengths()
        batches = [
            rows[batch] for rows in self._rounds for batch in batches_by_length(lengths[rows], MATCH_BATCH, generator)
        ]
        return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]

    def losses(self, batches: Sequence[Tensor], seed: str) -> Iterator[Losses]:
        self.matcher.train()
        for rows in batches:
            loss = self._of_pairs(rows) / self.m.ranks.size
            yield Losses(loss, loss.detach())

    def scores(self, validation: Validation, checkpoint: Checkpoint) -> dict[str, Any]:
        """Of captions, which this stage does not change, and of retrieval."""
        self._of_captions = self._of_captions or validation.scores(checkpoint)
        return {**self._of_captions, **validation.retrieval(checkpoint)}

    def told(self, row: dict[str, Any]) -> str:
        """R@K of both directions."""
        return "  ".join(
            f"{label} R@1/5/10 {' / '.join(f'{row[name][k]:.1f}' for k in ('r1', 'r5', 'r10'))}"
            for name, label in DIRECTIONS.items()
        )

    def _of_pairs(self, rows: Tensor) -> Tensor:
        """The loss of the captions `rows`, (B,), of as many pictures: ()"""
        mirrored = torch.rand(len(rows)) < 0.5
        features = self._features[self.m.captions.picture[rows].long(), mirrored.long()].to(self.m.ranks.device).float()
        tokens = sentences_of(self.m.tokens(rows, mirrored)).to(self.m.ranks.device)
        hidden = (torch.rand(tokens.shape, device=tokens.device) < _UNREAD) & (tokens != PAD)
        with self.m.autocast():
            pictures = self.matcher.pictures(self.m.model.decoder.standardised(features))
            sentences = self.matcher.sentences(tokens.masked_fill(hidden, UNK))
            cosines = (pictures @ sentences.T).float()
        return contrastive_loss(cosines / TEMPERATURE)


def contrastive_loss(logits: Tensor) -> Tensor:
    """The mean of both cross-entropies, along rows and columns, of logits (B, B) whose diagonal is right: ()"""
    right = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def _rounds(captions: CaptionTokens, pictures: int) -> list[Tensor]:
    """The numbers of the captions of pictures in rounds, in each of which no picture has more than one."""
    first = captions.first[: pictures + 1]
    number = first.diff()
    return [first[:-1][number > place] + place for place in range(int(number.max()))]
