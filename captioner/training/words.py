"""The word predictor in training: which words it predicts, what it is trained on, and what is relied on of it."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.network.encoder import native_bfloat16
from captioner.network.words import CLASSES
from captioner.training.captions import CaptionTokens
from captioner.vocab import SPECIAL_TOKENS, Vocabulary

FOLDS = 5
_ENGLISH = {"a", "the", "with"}  # which tell English captions from others
_RARE = 0.005  # share of the training pictures below which a word in their captions is rare
_STEPS, _BATCH, _RATE, _DECAY = 400, 512, 2e-3, 0.3  # of fitting a predictor to features


def frequent_words(captions: CaptionTokens, pictures: int, vocabulary: Vocabulary, number: int) -> Tensor:
    """The tokens of the most frequent words in the captions of the first `pictures`, (W,) int64, W <= `number`.

    Words that more than half of the pictures have are left out, because they do not tell pictures apart.
    """
    counts = _pictures_with(captions, pictures, vocabulary).tolist()
    kept = [token for token in range(len(SPECIAL_TOKENS), len(vocabulary)) if 0 < counts[token] <= pictures / 2]
    return torch.tensor(sorted(kept, key=lambda t: (-counts[t], vocabulary.words[t]))[:number], dtype=torch.int64)


class Columns:
    """The columns of tokens in a table of words, where a token may have two: it was learned, and is a name, too."""

    def __init__(self, tokens: Tensor, vocabulary_size: int) -> None:
        self._size = len(tokens)
        self._of = torch.full((2, vocabulary_size), self._size)
        for column, token in enumerate(tokens.tolist()):
            self._of[int(self._of[0, token] < self._size), token] = column

    def of(self, tokens: Tensor) -> Tensor:
        """Which of the words are among `tokens`, (n,) int64: (W,) bool"""
        found = torch.zeros(self._size + 1, dtype=torch.bool)
        found[self._of[:, tokens].flatten()] = True
        return found[:-1]

    def of_pictures(self, captions: CaptionTokens, number: int) -> Tensor:
        """Which of the words the captions of each of the first `number` pictures have: (P, W) bool"""
        tokens, owner = captions.with_owners(number)
        found = torch.zeros(number, self._size + 1, dtype=torch.bool)
        for columns in self._of:
            found[owner, columns[tokens]] = True
        return found[:, :-1].contiguous()


@cache
def _classes_by_name() -> dict[str, list[int]]:
    table = {}
    for line in (Path(__file__).parent / "imagenet_names.txt").read_text(encoding="utf-8").splitlines():
        name, *classes = line.split()
        ranges = [[int(end) for end in each.split("-")] for each in classes]
        table[name] = [number for ends in ranges for number in range(ends[0], ends[-1] + 1)]
    return table


def names_in(vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """The words of a vocabulary that name classes of ImageNet: their tokens (N,), and links (2, L) for the predictor.

    People call a hundred breeds of dogs "dog". The table, `imagenet_names.txt`, has a word and its classes in a line.
    The words are English, so a vocabulary of another language has none, although it may have a word like "hat".
    """
    known = {word: token for token, word in enumerate(vocabulary.words)}
    if not known.keys() >= _ENGLISH:
        known = {}
    names = [(known[name], classes) for name, classes in _classes_by_name().items() if name in known]
    links = [(number, place) for place, (_, classes) in enumerate(names) for number in classes]
    tokens = torch.tensor([token for token, _ in names], dtype=torch.int64)
    return tokens, torch.tensor(links, dtype=torch.int64).view(-1, 2).T.contiguous()


def rates_of(captions: CaptionTokens, number: int, vocabulary: Vocabulary) -> Tensor:
    """The shares of the first `number` pictures whose captions have each word of the vocabulary, (V,); 1 for special
    tokens.
    """
    counts = _pictures_with(captions, number, vocabulary).float()
    counts[: len(SPECIAL_TOKENS)] = number
    return counts / number


def _pictures_with(captions: CaptionTokens, number: int, vocabulary: Vocabulary) -> Tensor:
    """How many of the first `number` pictures have captions with each word of the vocabulary, (V,) int64."""
    tokens, owner = captions.with_owners(number)
    once = (owner * len(vocabulary) + tokens).unique()  # each token of a picture, however often it occurs
    return torch.bincount(once % len(vocabulary), minlength=len(vocabulary))


def strange_classes(links: Tensor, labels: Tensor) -> Tensor:
    """Which of ImageNet's classes are strange, (1000,) float: all their names are rare among training pictures.

    `links` (2, L) pairs classes with names, and `labels` (P, N) are the pictures that have the names in their captions.
    Classes without a name are not strange: there would be no word for them.
    """
    rare = labels.sum(0) < _RARE * len(labels)
    named = torch.zeros(CLASSES).index_add_(0, links[0], torch.ones(links.shape[1]))
    known = torch.zeros(CLASSES).index_add_(0, links[0], (~rare[links[1]]).float())
    return ((named > 0) & (known == 0)).float()


def word_loss(head: nn.Linear, features: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the words that `head` predicts from features (B, F), against labels (B, W) bool:
    the sum over words and pictures, ().
    """
    return F.binary_cross_entropy_with_logits(head(features), labels.to(features), reduction="sum")


def cross_fitted(features: Tensor, labels: Tensor, head: nn.Linear, mean: Tensor, std: Tensor) -> Tensor:
    """Fit `head` to features (P, 2, F) of pictures and their mirror images and to labels (P, W), and return what heads
    that never saw a picture say of it: probabilities (P, 2, W). `mean` and `std` (F,) standardise features.

    A head is too sure of the pictures that it was fitted to, and a decoder would learn to believe it. So each fifth of
    the pictures is predicted by a head that was fitted to the others. `head` itself is fitted to all of them.
    """
    fold = torch.arange(len(features)) % FOLDS
    found = torch.empty(*features.shape[:2], labels.shape[1])
    for number in range(FOLDS):
        mine = fold == number
        if mine.any():
            others = ~mine if len(features) > 1 else mine  # a single picture has no others
            weight, bias = _fitted(features[others], labels[others], mean, std)
            found[mine] = torch.sigmoid(F.linear((features[mine] - mean) / std, weight, bias))
    fit_to(features, labels, head, mean, std)
    return found


def fit_to(features: Tensor, labels: Tensor, head: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """Fit `head` to all features and labels, given as to `cross_fitted`."""
    weight, bias = _fitted(features, labels, mean, std)
    with torch.no_grad():  # for features as they are
        head.weight.copy_(weight / std)
        head.bias.copy_(bias - (weight / std) @ mean)


@torch.enable_grad()
def _fitted(features: Tensor, labels: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (W, F) and bias (W,) of a logistic regression on standardised features, by AdamW."""
    generator = torch.Generator().manual_seed(0)
    share = labels.float().mean(0).clamp(1e-4, 1 - 1e-4)
    weight = torch.zeros(labels.shape[1], features.shape[-1], requires_grad=True)
    bias = torch.log(share / (1 - share)).requires_grad_()
    groups: list[dict[str, Any]] = [{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, weight_decay=_DECAY)
    # Not with autocast, which would remember the rounded weights of the first step.
    low = torch.bfloat16 if native_bfloat16("cpu") else torch.float32
    for step in range(_STEPS):
        for group in adamw.param_groups:
            group["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * step / _STEPS))
        rows, sides = (torch.randint(high, (_BATCH,), generator=generator) for high in (len(features), 2))
        known = (features[rows, sides] - mean) / std
        known = known * (torch.rand(known.shape, generator=generator) >= 0.25) / 0.75  # as the decoder drops features
        logits = F.linear(known.to(low), weight.to(low)).float() + bias
        loss = F.binary_cross_entropy_with_logits(logits, labels[rows].float(), reduction="sum")
        adamw.zero_grad()
        (loss / _BATCH).backward()
        adamw.step()
    return weight.detach(), bias.detach()
