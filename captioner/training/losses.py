"""The losses of training: cross-entropy of captions, and of frequent words predicted from a feature alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.network.kernels import summed_cross_entropy
from captioner.network.model import Decoder
from captioner.vocab import PAD, UNK, Vocabulary

GROUP_SIZE = 64  # captions that go through the decoder at once


@dataclass(frozen=True)
class Losses:
    """The loss that a step minimises, and two values for the log: scalars, which add up over the ranks."""

    total: Tensor
    captions: Tensor  # cross-entropy per token
    reward: Tensor | float = 0.0  # mean reward


def caption_loss(decoder: Decoder, features: Tensor, tokens: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Teacher-forced cross-entropy of captions (B, T) given features (B, F): the sum over all real tokens, ()."""
    logits = decoder(features, tokens[:, :-1])  # (B, T - 1, V)
    return summed_cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), label_smoothing)


def real_targets(tokens: Tensor) -> int:
    """How many tokens of (B, T) are to be predicted: all but `<start>` and padding."""
    return int((tokens[:, 1:] != PAD).sum())


def grouped_caption_loss(decoder: Decoder, features: Tensor, tokens: Tensor, owner: Tensor, smoothing: float) -> Tensor:
    """`caption_loss` of captions (B, T), where caption b belongs to `features[owner[b]]`, in `groups_by_length`."""
    total = features.new_zeros(())
    for group, part in groups_by_length(tokens):
        of_group = features[owner[group].to(features.device)]
        total = total + caption_loss(decoder, of_group, part.to(features.device), smoothing)
    return total


def groups_by_length(tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Captions (B, T) in groups of similar length, so that little time goes into padding.

    Each group is given as its rows, (b,), and its tokens up to the end of its longest caption, (b, t).
    """
    lengths = (tokens != PAD).sum(1)
    for group in lengths.argsort(stable=True).split(GROUP_SIZE):
        yield group, tokens[group, : int(lengths[group].max())]


def concept_labels(texts: Iterable[Sequence[str]], vocabulary: Vocabulary, number: int) -> tuple[list[str], Tensor]:
    """The most frequent words, and which pictures have them in their captions `texts[p]`: (P, C) bool.

    Predicting them from the feature is the "high-level concepts" of Wu et al. 2016 ("What value do explicit high
    level concepts have in vision to language problems?"). Words that more than half of the pictures have are left
    out, because they do not tell pictures apart.
    """
    found = [{token for text in captions for token in vocabulary.encode(text)} for captions in texts]
    counts = Counter(token for tokens in found for token in tokens)
    kept = [token for token in counts if token != UNK and counts[token] <= len(found) / 2]
    concepts = sorted(kept, key=lambda token: (-counts[token], vocabulary.words[token]))[:number]
    column = {token: index for index, token in enumerate(concepts)}
    labels = torch.zeros(len(found), len(concepts), dtype=torch.bool)
    for row, tokens in enumerate(found):
        labels[row, [column[token] for token in tokens if token in column]] = True
    return [vocabulary.words[token] for token in concepts], labels


def concept_loss(head: nn.Linear, features: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the concepts that `head` predicts from features (B, F), against labels (B, C) bool:
    the sum over concepts and pictures, ().
    """
    return F.binary_cross_entropy_with_logits(head(features), labels.to(features), reduction="sum")
