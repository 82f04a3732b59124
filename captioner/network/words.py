"""Which words people would use of a picture, told from its feature alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captioner.network.config import ModelConfig

CLASSES = 1000  # of ImageNet
DOUBT = 0.01  # probability of any word, although neither the predictor nor the training captions speak for it


class WordPredictor(nn.Module):
    """Probabilities of W words, (B, W), from features (B, F): `config.words` of them learned, then `config.names`.

    - The probability of a learned word is a logistic function of the feature ("high-level concepts" of Wu et al. 2016,
      "What value do explicit high level concepts have in vision to language problems?").
    - A name is a word for some of ImageNet's classes. Its probability is the sum of theirs, by the classifier with
      which the encoder came. It knows things that no picture of the training set shows (Hendricks et al. 2016, "Deep
      compositional captioning").

    `tokens` (W,) are the words' tokens in the vocabulary. `links` (2, config.links) pairs classes with names. `strange`
    (1000,) is 1 for classes whose names hardly any training picture has in its captions, and 0 for the others. `rates`
    (V,) are the shares of the training pictures whose captions have a word of the vocabulary, and 1 for special tokens.
    """

    def __init__(self, config: ModelConfig, feature_size: int) -> None:
        super().__init__()
        self.names = config.names
        self.size = config.words + config.names
        if config.words:
            self.learned = nn.Linear(feature_size, config.words)
        self.tokens: Tensor
        self.links: Tensor
        self.strange: Tensor
        self.rates: Tensor
        if self.size:
            self.register_buffer("tokens", torch.zeros(self.size, dtype=torch.int64))
            self.register_buffer("rates", torch.ones(config.vocabulary_size))
        if config.names:
            # Kept as it came: training it on the few classes of a small set would spoil the others.
            self.classifier = nn.Linear(feature_size, CLASSES).requires_grad_(False)
            self.register_buffer("links", torch.zeros(2, config.links, dtype=torch.int64))
            self.register_buffer("strange", torch.zeros(CLASSES))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, W)"""
        parts = [features.new_zeros(len(features), 0)]
        if self.size > self.names:
            parts.append(torch.sigmoid(self.learned(features)))
        if self.names:
            parts.append(self.of_names(features))
        return torch.cat(parts, 1)

    def of_names(self, features: Tensor) -> Tensor:
        """The probabilities of the names alone: (B, F) -> (B, config.names)."""
        classes, names = self.links
        of_classes = self.classifier(features).softmax(-1)
        found: Tensor = of_classes.new_zeros(len(features), self.names)
        return found.index_add_(1, names, of_classes[:, classes]).clamp_(max=1.0)  # a sum of rounded numbers

    @torch.no_grad()
    def evidence(self, words: Tensor) -> Tensor | None:
        """How far pictures speak for each word of the vocabulary: (B, V) float32, logarithms of at most 0.

        `words` (B, W) are the probabilities of the predicted words. Evidence is the logarithm of the probability that
        people would use the word. Of a word that is not predicted, that is its rate among the training pictures.
        Multiplying a language model's probabilities by those of detected words is from Fang et al. 2015, "From captions
        to visual concepts and back". None without predicted words.
        """
        if not self.size:
            return None
        found = words.float()
        rates = self.rates.float().repeat(len(words), 1)
        # A token may be learned and a name, too.
        rates.scatter_reduce_(1, self.tokens.expand_as(found), found, "amax", include_self=False)
        return ((rates + DOUBT) / (1.0 + DOUBT)).log_()

    @torch.no_grad()
    def strangeness(self, features: Tensor) -> Tensor:
        """How far a picture is of something that no training picture shows: (B, F) -> (B, 1), from 0 to 1.

        It grows with the probability of all strange classes. A little of that is in every picture.
        """
        if not self.names:
            return features.new_zeros(len(features), 1)
        probability: Tensor = self.classifier(features).softmax(-1) @ self.strange.to(features)
        return ((probability - 0.2) / 0.6).clamp(0.0, 1.0).unsqueeze(1)
