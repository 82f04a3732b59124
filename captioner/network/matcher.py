"""Pictures and sentences as vectors in one space, where a sentence lies near the pictures that it is true of.

Shapes: B batch, T tokens, F feature, H hidden, D size of the space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.network.config import ModelConfig
from captioner.network.kernels import Dropout
from captioner.network.recurrent import RecurrentLayer
from captioner.vocab import PAD

MATCH_DROPOUT = 0.3


class SentenceEncoder(nn.Module):
    """A bidirectional recurrent network (Schuster and Paliwal 1997) that reads a whole sentence: (B, T) -> (B, D).

    One layer reads the words x_1 ... x_T forwards, the other one backwards:
    h→_t = f(x_t, h→_{t-1}) and h←_t = f(x_t, h←_{t+1}). Each place has y_t = [h→_t ; h←_t], which knows the words on
    both sides, and the vector of the sentence is W_y max_t y_t + b_y, scaled to unit length. The maximum takes each
    number from the place where it speaks loudest (Conneau et al. 2017, "Supervised learning of universal sentence
    representations"). A captioner cannot be bidirectional, since the words to the right are still to be written.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = config.match_hidden
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size)
        self.forwards = RecurrentLayer("lstm", config.embedding_size, size)
        self.backwards = RecurrentLayer("lstm", config.embedding_size, size)
        self.output = nn.Linear(2 * size, config.match_size)
        self.dropout = Dropout(MATCH_DROPOUT)
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Sentences without `<start>` and `<end>`, at least one token each, padded at their ends: (B, T) -> (B, D)."""
        is_word = tokens != PAD
        words = self.dropout(self.embedding(tokens))
        turned = turned_round(is_word.sum(1), tokens.shape[1])
        zeros = words.new_zeros(1, len(tokens), self.output.in_features // 2)
        state = (zeros, zeros)
        after, _ = self.forwards(words, state)  # what padding does to states comes after all words
        before, _ = self.backwards(_at(words, turned), state)
        places = torch.cat([after, _at(before, turned)], 2)
        pooled = places.masked_fill(~is_word[:, :, None], -torch.inf).amax(1)
        return F.normalize(self.output(self.dropout(pooled)), dim=1)


def turned_round(lengths: Tensor, steps: int) -> Tensor:
    """For sentences of `lengths`, (B,), padded to `steps`: which place each place exchanges with when the words, and
    not the padding, are turned round, (B, T) int64. It is its own inverse.
    """
    places = torch.arange(steps, device=lengths.device).expand(len(lengths), steps)
    return torch.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """values (B, T, N), places (B, T) -> the values at these places (B, T, N)."""
    return values.gather(1, places[:, :, None].expand_as(values))


class Matcher(nn.Module):
    """Both ways into the space: sentences by a `SentenceEncoder`, pictures by a linear function of their feature."""

    def __init__(self, config: ModelConfig, feature_size: int) -> None:
        super().__init__()
        self.sentences = SentenceEncoder(config)
        self.projection = nn.Linear(feature_size, config.match_size)
        self.dropout = Dropout(MATCH_DROPOUT)

    def pictures(self, standardised: Tensor) -> Tensor:
        """Features that the decoder's mean and deviation have standardised, (B, F) -> unit vectors (B, D)."""
        return F.normalize(self.projection(self.dropout(standardised)), dim=1)
