"""Calibration: of the words that get a probability of 70 %, do people write 70 %?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.network.model import Decoder
from captioner.vocab import PAD

BINS = 15
TEMPERATURES = tuple(round(0.80 + 0.02 * step, 2) for step in range(31))  # 0.80 to 1.40

FeaturesAndTokens = tuple[Tensor, Tensor]  # (B, F) of pictures, and their captions (B, T)


@dataclass(frozen=True)
class Calibration:
    """Probabilities of the most likely next word, in bins of equal width; empty bins are left out."""

    confidence: tuple[float, ...]  # mean probability in each bin
    accuracy: tuple[float, ...]  # how often people wrote that word
    share: tuple[float, ...]  # of all words
    error: float  # expected calibration error: the mean of |confidence - accuracy| over all words, in percent points


def calibration(decoder: Decoder, batches: Iterable[FeaturesAndTokens]) -> Calibration:
    """The calibration on teacher-forced captions (Guo et al. 2017, "On calibration of modern neural networks")."""
    return _at(decoder, batches, (1.0,))[0]


def fit_temperature(decoder: Decoder, batches: Iterable[FeaturesAndTokens]) -> float:
    """The one of TEMPERATURES that gives the smallest calibration error when logits are divided by it.

    Usually the temperature with the smallest cross-entropy is taken. Cross-entropy, however, depends on all words, and
    people see the probability of the most likely word only.
    """
    errors = [found.error for found in _at(decoder, batches, TEMPERATURES)]
    return TEMPERATURES[min(range(len(errors)), key=errors.__getitem__)]


@torch.inference_mode()
def _at(decoder: Decoder, batches: Iterable[FeaturesAndTokens], temperatures: Sequence[float]) -> list[Calibration]:
    """The calibration of the decoder when its logits are divided by each of the temperatures."""
    # For each temperature and bin: the number of words, the sum of their probabilities, and how many were right.
    sums = torch.zeros(len(temperatures), 3, BINS, dtype=torch.float64)
    for features, tokens in batches:
        targets = tokens[:, 1:]
        real = targets != PAD
        logits = decoder(features, tokens[:, :-1]).float()[real]  # (N, V)
        highest, likeliest = logits.max(-1, keepdim=True)
        right = (likeliest.squeeze(-1) == targets[real]).double().cpu()
        below = logits - highest
        for of_temperature, temperature in zip(sums, temperatures, strict=True):
            probability = 1.0 / (below / temperature).exp().sum(-1).double().cpu()
            bins = (probability * BINS).long().clamp(max=BINS - 1)
            for total, values in zip(of_temperature, (None, probability, right), strict=True):
                total += torch.bincount(bins, values, minlength=BINS)
    found = []
    for count, confidence, accuracy in sums:
        error = 100.0 * float((confidence - accuracy).abs().sum() / count.sum().clamp(min=1))
        used = count > 0
        means = [tuple((total[used] / count[used]).tolist()) for total in (confidence, accuracy)]
        found.append(Calibration(means[0], means[1], tuple((count[used] / count.sum()).tolist()), error))
    return found


@torch.no_grad()
def divide_logits(decoder: Decoder, temperature: float) -> None:
    """Divide all logits by a temperature, by scaling the output layer in place."""
    for weights in decoder.output.parameters():
        weights.div_(temperature)
