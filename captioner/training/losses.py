"""What a captioner is trained on: cross-entropy of captions, and the frequent words that a feature must predict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.network.model import Decoder
from captioner.vocab import PAD, UNK, Vocabulary

GROUP_SIZE = 64  # captions that go through the decoder at once


@dataclass(frozen=True)
class Losses:
    """What a step minimises, and what is logged of it: the cross-entropy a token, the mean reward; all (), and of
    this rank's share of the batch: the sums over all ranks are the batch's.
    """

    total: Tensor
    captions: Tensor
    reward: Tensor | None = None


def caption_loss(decoder: Decoder, features: Tensor, tokens: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Teacher-forced cross-entropy of captions (B, T), given features (B, F): the sum over all real tokens, ()"""
    logits = decoder(features, tokens[:, :-1])  # (B, T - 1, V)
    total: Tensor = _CrossEntropy.apply(logits.flatten(0, 1), tokens[:, 1:].flatten(), label_smoothing)  # type: ignore[no-untyped-call]  # torch's
    return total


class _CrossEntropy(torch.autograd.Function):
    """`F.cross_entropy` of logits (N, V) with label smoothing, summed over targets (N,) that are no padding.

    The gradient is found along with the value, a few rows at a time, which stay in the processor's cache: with a large
    vocabulary half of torch's time for this goes into reading and writing (N, V) in float32 again and again.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        gradient = torch.empty_like(logits)
        parts, even = [], smoothing / logits.shape[1]
        for some, those, out in zip(*(t.split(GROUP_SIZE) for t in (logits, targets, gradient)), strict=True):
            exact, real = some.float(), (those != PAD).float()[:, None]
            # One exponential a logit: the largest one's probability tells what all of them add up to.
            difference = exact.softmax(-1)  # from the smoothed target distribution
            log_total = exact.amax(-1, keepdim=True) - difference.amax(-1, keepdim=True).log()
            smoothed = (1.0 - smoothing) * exact.gather(1, those[:, None]) + smoothing * exact.mean(-1, keepdim=True)
            parts.append(((smoothed - log_total) * real).sum())
            difference.sub_(even).scatter_add_(1, those[:, None], torch.full_like(real, smoothing - 1.0))
            torch.mul(difference, real, out=difference)
            out.copy_(difference)
        ctx.save_for_backward(gradient)
        return -torch.stack(parts).sum()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None]:
        [gradient] = ctx.saved_tensors
        return gradient.mul_(factor), None, None  # in place: torch refuses to go back a second time


def real_targets(tokens: Tensor) -> int:
    """How many tokens of (B, T) are predicted: all but `<start>` and padding."""
    return int((tokens[:, 1:] != PAD).sum())


def grouped_caption_loss(
    decoder: Decoder, features: Tensor, tokens: Tensor, owner: Tensor, label_smoothing: float
) -> Tensor:
    """`caption_loss` of captions (B, T), of which b belongs to `features[owner[b]]`, in `groups_by_length`."""
    total = features.new_zeros(())
    for group, part in groups_by_length(tokens):
        those = features[owner[group].to(features.device)]
        total = total + caption_loss(decoder, those, part.to(features.device), label_smoothing)
    return total


def groups_by_length(tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Captions (B, T) in groups of about equal length, so that little is spent on padding: the rows of each, (b,), and
    their tokens up to the end of the longest, (b, t).
    """
    lengths = (tokens != PAD).sum(1)
    for group in lengths.argsort(stable=True).split(GROUP_SIZE):
        yield group, tokens[group, : int(lengths[group].max())]


def concept_labels(texts: Iterable[Sequence[str]], vocabulary: Vocabulary, number: int) -> tuple[list[str], Tensor]:
    """Frequent words, and which picture has each in one of its captions, `texts[p]`: (P, C) bool.

    Predicting them from the feature is the "high-level concepts" of Wu et al. 2016 ("What value do explicit high
    level concepts have in vision to language problems?"). Words in the captions of more than half of the pictures
    say nothing of a picture and are left out.
    """
    found = [{token for text in those for token in vocabulary.encode(text)} for those in texts]
    counts = Counter(token for those in found for token in those)
    kept = [token for token in counts if token != UNK and counts[token] <= len(found) / 2]
    concepts = sorted(kept, key=lambda token: (-counts[token], vocabulary.words[token]))[:number]
    column = {token: index for index, token in enumerate(concepts)}
    labels = torch.zeros(len(found), len(concepts), dtype=torch.bool)
    for row, those in enumerate(found):
        labels[row, [column[token] for token in those if token in column]] = True
    return [vocabulary.words[token] for token in concepts], labels


def concept_loss(head: nn.Linear, features: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the words that `head` predicts from features (B, F), against labels (B, C) bool:
    the sum over words and pictures, ()
    """
    return F.binary_cross_entropy_with_logits(head(features), labels.to(features), reduction="sum")
