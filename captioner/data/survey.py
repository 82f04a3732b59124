"""What a set of captions is like, before anything is trained on it: lengths, vocabulary, strange captions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from captioner.vocab import SPECIAL_TOKENS

Tokens = Sequence[str]
MINIMUM_COUNTS = (1, 2, 3, 4, 5, 10)

_BIGRAM = 0.7  # share of a token's probability that comes from the token before it
_EDGE = "\n"  # before the first token and after the last; no token


@dataclass(frozen=True)
class VocabularySize:
    """What a minimum count leaves of the vocabulary, and the share (0 to 1) of tokens that it makes `<unk>`."""

    minimum_count: int
    size: int  # special tokens included
    unknown_train: float
    unknown_validation: float


def vocabulary_sizes(
    train: Iterable[Tokens], validation: Iterable[Tokens], minimum_counts: Iterable[int]
) -> list[VocabularySize]:
    """The vocabulary of the captions that are learned from, for each of the minimum counts."""
    counts = Counter(token for tokens in train for token in tokens)
    others = Counter(token for tokens in validation for token in tokens)
    sizes = []
    for minimum in minimum_counts:
        kept = [token for token, count in counts.items() if count >= minimum]
        unknown = [_share_outside(kept, those) for those in (counts, others)]
        sizes.append(VocabularySize(minimum, len(SPECIAL_TOKENS) + len(kept), *unknown))
    return sizes


def _share_outside(kept: Iterable[str], counts: Counter[str]) -> float:
    return 1 - sum(counts[token] for token in kept) / counts.total() if counts else 0.0


def strangeness(captions: Sequence[Tokens]) -> list[float]:
    """How little each caption is like all the others: the mean surprise a token, in bits.

    A token's probability is that of a bigram model mixed with a unigram model, both of the other captions: what a
    caption itself adds to the counts is taken off, or else one that nobody else would write would predict itself.
    """
    unigrams: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    for tokens in captions:
        unigrams.update((*tokens, _EDGE))
        bigrams.update(_pairs(tokens))
    total, size = unigrams.total(), len(unigrams)
    found = []
    for tokens in captions:
        own, own_pairs = Counter((*tokens, _EDGE)), Counter(_pairs(tokens))
        others = total - own.total() + size + 1  # one more than there is of each token, and of unknown ones
        bits = 0.0
        for pair, times in own_pairs.items():
            before, token = pair
            alone = (unigrams[token] - own[token] + 1) / others
            context = unigrams[before] - own[before]
            after = (bigrams[pair] - times) / context if context else 0.0
            bits -= times * math.log2(_BIGRAM * after + (1 - _BIGRAM) * alone)
        found.append(bits / (len(tokens) + 1))
    return found


def _pairs(tokens: Tokens) -> list[tuple[str, str]]:
    return list(zip((_EDGE, *tokens), (*tokens, _EDGE), strict=True))


def histogram(lengths: Sequence[int], bars: int = 12, width: int = 40) -> list[str]:
    """Lines of text: how many captions have about which length. The last bar holds the longest hundredth, too."""
    ordered = sorted(lengths)
    low, high = ordered[0], ordered[math.ceil(0.99 * len(ordered)) - 1]
    step = max(1, math.ceil((high - low + 1) / bars))
    last = (high - low) // step
    counts = Counter(min(last, (length - low) // step) for length in lengths)
    labels = [f"{low + step * bar}" + (f"-{low + step * (bar + 1) - 1}" if step > 1 else "") for bar in range(last + 1)]
    if ordered[-1] > low + step * (last + 1) - 1:
        labels[-1] = f"{low + step * last}-{ordered[-1]}"
    most = max(counts.values())
    return [
        f"{label:>9}  {'#' * math.ceil(width * counts[bar] / most):{width}}  {100 * counts[bar] / len(lengths):5.1f} %"
        for bar, label in enumerate(labels)
    ]
