"""Whether probabilities mean what they say: of the words given 70 %, do people write 70 %?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.model import Decoder
from captioner.vocab import PAD

BINS = 15
TEMPERATURES = tuple(round(0.70 + 0.01 * step, 2) for step in range(81))  # 0.70 to 1.50

# Captions (B, T) with the features (B, F) of their pictures.
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Calibration:
    """Probabilities of the likeliest next word, in bins of equal width that hold any, and how far they are off."""

    confidence: tuple[float, ...]  # the mean probability in a bin
    accuracy: tuple[float, ...]  # how often that word was the one that people wrote
    share: tuple[float, ...]  # of all words
    error: float  # expected calibration error: |confidence - accuracy|, the mean over words, in points of percent


@torch.inference_mode()
def calibration(decoder: Decoder, batches: Iterable[Batch]) -> Calibration:
    """Teacher-forced on captions (Guo et al. 2017, "On calibration of modern neural networks")."""
    count, confidence, accuracy = (torch.zeros(BINS, dtype=torch.float64) for _ in range(3))
    for logits, targets in _next_words(decoder, batches):
        probability, likeliest = logits.softmax(-1).max(-1)
        bins = (probability * BINS).long().clamp(max=BINS - 1).cpu()
        count += torch.bincount(bins, minlength=BINS)
        confidence += torch.bincount(bins, probability.double().cpu(), minlength=BINS)
        accuracy += torch.bincount(bins, (likeliest == targets).double().cpu(), minlength=BINS)
    error = (confidence - accuracy).abs().sum() / count.sum().clamp(min=1)
    used = count > 0
    count, confidence, accuracy = count[used], confidence[used], accuracy[used]
    return Calibration(
        tuple((confidence / count).tolist()),
        tuple((accuracy / count).tolist()),
        tuple((count / count.sum()).tolist()),
        100.0 * float(error),
    )


@torch.inference_mode()
def fit_temperature(decoder: Decoder, batches: Iterable[Batch]) -> float:
    """The one of TEMPERATURES by which logits must be divided for the smallest cross-entropy of the captions."""
    losses = torch.zeros(len(TEMPERATURES), dtype=torch.float64)
    for logits, targets in _next_words(decoder, batches):
        chosen = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        for index, temperature in enumerate(TEMPERATURES):
            losses[index] += float(((logits / temperature).logsumexp(-1) - chosen / temperature).double().sum())
    return TEMPERATURES[int(losses.argmin())]


@torch.no_grad()
def divide_logits(decoder: Decoder, temperature: float) -> None:
    """Make a temperature part of the network, in place: its last linear layer is scaled, and needs no other."""
    if decoder.config.tie_embeddings:
        last: list[Tensor] = [*decoder.projection.parameters(), decoder.output_bias]
    else:
        last = [*decoder.output.parameters()]
    for weights in last:
        weights.div_(temperature)


def _next_words(decoder: Decoder, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (N, V) and targets (N,) of the tokens that are to be predicted."""
    for features, tokens in batches:
        targets = tokens[:, 1:]
        real = targets != PAD
        yield decoder(features, tokens[:, :-1]).float()[real], targets[real]
