"""Caption metrics on words: BLEU, ROUGE-L and CIDEr-D, as the captioning literature defines them.

Texts are lists of words or characters (see `vocab.tokenise`), neither strings nor ids. Values are scaled as in papers:
0 to 100, and for CIDEr-D 0 to 1000. ROUGE-L and CIDEr-D are computed for each caption, and the value of a corpus is
their mean. BLEU is computed for a whole corpus; it is not a mean over captions.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from nltk.translate.bleu_score import corpus_bleu

Words = Sequence[str]
Ngram = tuple[str, ...]
Counts = np.ndarray[Any, np.dtype[np.float64]]

ORDERS = 4  # BLEU and CIDEr-D count n-grams of one to four words
_ROUGE_BETA = 1.2  # as in coco-caption: recall counts a little more than precision
_CIDER_SIGMA = 6.0


def bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of a corpus (Papineni et al. 2002), 0 to 100, unsmoothed: nltk's `corpus_bleu`.

    `hypotheses[i]` is the tokenised caption of picture i, `references[i]` all its tokenised reference captions.
    Raises ValueError if their lengths differ, or if a text is not a list of words.
    """
    _check(hypotheses, references)
    weights = [tuple([1.0 / n] * n) for n in range(1, ORDERS + 1)]

    # For a caption shorter than n, nltk counts one n-gram that did not match; coco-caption counts none, as it has none.
    too_short = [sum(len(words) < n for words in hypotheses) for n in range(1, ORDERS + 1)]

    def without_missing(precisions: Sequence[Fraction], **_: Any) -> list[float]:
        matches = [precision.numerator for precision in precisions]
        totals = [precision.denominator - short for precision, short in zip(precisions, too_short, strict=True)]
        # nltk leaves zeros out of the mean, which would raise the value, so that they become the smallest number.
        return [m / t if m else sys.float_info.min for m, t in zip(matches, totals, strict=True)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk warns if an order has no match, which the value 0 shows anyway
        scores = corpus_bleu(list(map(list, references)), list(hypotheses), weights, smoothing_function=without_missing)
    return [100.0 * float(score) for score in scores]


def _check(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """Raise ValueError for arguments that nltk would silently score in another way."""
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(f"{len(hypotheses)} captions for the references of {len(references)} pictures")
    for words, those in zip(hypotheses, references, strict=True):
        if not those:
            raise ValueError("a picture has no reference captions")
        if any(isinstance(text, str) for text in (words, *those)):
            raise ValueError("captions are lists of words here, and each picture has a list of those")


def bleu_counts(hypothesis: Words, references: Sequence[Words]) -> list[int]:
    """What a caption contributes to the BLEU of a corpus, as 10 numbers that can be summed.

    They are its n-grams of order 1 to 4 that match, all its n-grams of order 1 to 4, its length, and the length of
    the reference whose length is closest (the shorter one of two).
    """
    allowed = _most(references)
    matches = [0] * ORDERS
    for ngram, count in _ngrams(hypothesis).items():
        matches[len(ngram) - 1] += min(count, allowed.get(ngram, 0))
    length = len(hypothesis)
    closest = min((abs(len(words) - length), len(words)) for words in references)[1]
    return [*matches, *(max(0, length - n) for n in range(ORDERS)), length, closest]


def bleu_of_counts(counts: Counts) -> Counts:
    """Summed `bleu_counts` (..., 10) to BLEU-1 to BLEU-4 (..., 4), 0 to 100.

    The values equal those of `bleu`. They are faster to compute, for any selection of pictures.
    """
    matches, totals = counts[..., :ORDERS], counts[..., ORDERS : 2 * ORDERS]
    length, closest = counts[..., 2 * ORDERS], counts[..., 2 * ORDERS + 1]
    with np.errstate(divide="ignore"):  # log 0 is minus infinity, and its exponential 0 is right
        logs = np.log(matches / np.maximum(totals, 1)).cumsum(-1) / np.arange(1, ORDERS + 1)
        brevity = np.minimum(0.0, 1.0 - closest / np.maximum(length, 1))
    result: Counts = 100.0 * np.exp(brevity[..., None] + logs)
    return result


def smoothed_bleu(counts: Sequence[int]) -> float:
    """BLEU-4 of one caption, 0 to 100, from its `bleu_counts`, smoothed by adding one to the counts of order 2 to 4.

    Lin and Och 2004. It serves to rank captions; its mean is not the BLEU of a corpus.
    """
    smoothed = np.array(counts, dtype=np.float64)
    for order in range(1, ORDERS):
        smoothed[[order, ORDERS + order]] += 1.0
    return float(bleu_of_counts(smoothed)[-1])


def best_constant_caption(references: Sequence[Sequence[Words]]) -> list[str]:
    """The reference caption with the highest BLEU-4 if every picture gets it; of several, the first in the alphabet.

    The search is exact. A caption's matches in a corpus are the sum over its n-grams of the number of pictures that
    have them, so that a candidate takes no longer than counting its own n-grams.
    """
    pictures_with: Counter[tuple[Ngram, int]] = Counter()  # a first one, a second one, ...
    for those in references:
        pictures_with.update((ngram, nth) for ngram, count in _most(those).items() for nth in range(count))
    candidates = sorted({tuple(words) for those in references for words in those})
    counts = np.zeros((len(candidates), 2 * ORDERS + 2))
    for row, words in zip(counts, candidates, strict=True):
        matches = [0] * ORDERS
        for ngram, count in _ngrams(words).items():
            matches[len(ngram) - 1] += sum(pictures_with[ngram, nth] for nth in range(count))
        row[:ORDERS] = matches
    lengths = np.array([len(words) for words in candidates])
    counts[:, ORDERS : 2 * ORDERS] = len(references) * np.maximum(0, lengths[:, None] - np.arange(ORDERS))
    counts[:, 2 * ORDERS] = len(references) * lengths
    counts[:, 2 * ORDERS + 1] = _closest_lengths(lengths, references)
    # Compare by BLEU-4, then 3, 2, 1. Rounded, because equal values may differ in the last bits.
    scores = [tuple(row) for row in bleu_of_counts(counts)[:, ::-1].round(9).tolist()]
    return list(candidates[scores.index(max(scores))])


def _closest_lengths(lengths: Any, references: Sequence[Sequence[Words]]) -> Any:
    """For each length, sum the closest length of a reference (the shorter one of two) over the pictures."""
    every = np.array([len(words) for those in references for words in those])
    starts = np.cumsum([0, *(len(those) for those in references[:-1])])
    base = every.max() + 1  # one number encodes the distance, then the length
    sums = {
        length: (np.minimum.reduceat(np.abs(every - length) * base + every, starts) % base).sum()
        for length in set(lengths.tolist())
    }
    return [sums[length] for length in lengths.tolist()]


def rouge_l(hypothesis: Words, references: Sequence[Words]) -> float:
    """ROUGE-L of one caption (Lin 2004), 0 to 100, computed as in coco-caption.

    It is the F-measure (beta 1.2) of the best precision and the best recall among the longest common subsequences
    with the references.
    """
    common = [(longest_common_subsequence(hypothesis, words), len(words)) for words in references if words]
    if not any(shared for shared, _ in common):
        return 0.0
    precision = max(shared for shared, _ in common) / len(hypothesis)
    recall = max(shared / length for shared, length in common)
    weight = _ROUGE_BETA**2
    return 100.0 * (1.0 + weight) * precision * recall / (recall + weight * precision)


def longest_common_subsequence(first: Words, second: Words) -> int:
    """The length of the longest common subsequence. Bit-parallel (Hyyrö 2004): a row of the table is one integer."""
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    every = (1 << len(first)) - 1
    row = every  # a zero bit marks a place where the row of the table increases by one
    for word in second:
        matching = row & places.get(word, 0)
        row = (row + matching | row - matching) & every
    return len(first) - row.bit_count()


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many documents each n-gram occurs. A document of CIDEr is all references of one picture."""

    counts: Mapping[Ngram, int]
    documents: int

    @classmethod
    def of(cls, references: Iterable[Sequence[Words]]) -> DocumentFrequencies:
        """Count them in a corpus; `references[i]` are the tokenised captions of picture i."""
        counts: Counter[Ngram] = Counter()
        documents = 0
        for those in references:
            counts.update(set().union(*map(_ngrams, those)))
            documents += 1
        return cls(counts, documents)


class Cider:
    """CIDEr-D (Vedantam et al. 2015) of one caption at a time, with references that are prepared once.

    `references` gives those of a picture by its index. `frequencies` are counted in the evaluated references for a
    report, as in the literature, and in the training captions if the value is a reward. Sigma is 6, as in coco-caption.
    With a single document all n-grams have weight 0, and so all values are 0. Raises ValueError if there is none.
    """

    def __init__(self, references: Callable[[int], Sequence[Words]], frequencies: DocumentFrequencies) -> None:
        if not frequencies.documents:
            raise ValueError("CIDEr-D needs document frequencies of at least one picture's references")
        self._unseen = math.log(frequencies.documents)  # the weight of an n-gram that occurs in no document
        # Most n-grams occur in one document, and have the same weight as those in none.
        several = ((ngram, count) for ngram, count in frequencies.counts.items() if count > 1)
        self._seen = {ngram: self._unseen - math.log(count) for ngram, count in several}
        # Of the last picture only: those of a large set would take gigabytes.
        self._vectors = lru_cache(1)(lambda picture: [self._vector(words) for words in references(picture)])

    def score(self, picture: int, words: Words) -> float:
        """CIDEr-D of a caption against the references with index `picture`, scaled as in papers (times 100)."""
        vector, norms, length = self._vector(words)
        total, references = 0.0, self._vectors(picture)
        for other, other_norms, other_length in references:
            products = [0.0] * ORDERS
            for ngram, weight in vector.items():
                if ngram in other:
                    products[len(ngram) - 1] += min(weight, other[ngram]) * other[ngram]
            # If a norm is 0, the product is 0, too.
            cosines = (p / (n * m) for p, n, m in zip(products, norms, other_norms, strict=True) if n and m)
            total += sum(cosines) * math.exp(-((length - other_length) ** 2) / (2 * _CIDER_SIGMA**2))
        # The mean over n-gram orders and references, times the 10 of the paper, times 100.
        return 1000.0 * total / (ORDERS * len(references))

    def _vector(self, words: Words) -> tuple[dict[Ngram, float], list[float], int]:
        """The tf-idf weight of each n-gram, the norm of these weights for each order, and the number of words."""
        seen, unseen = self._seen.get, self._unseen
        vector = {ngram: count * seen(ngram, unseen) for ngram, count in _ngrams(words).items()}
        squares = [0.0] * ORDERS
        for ngram, weight in vector.items():
            squares[len(ngram) - 1] += weight * weight
        return vector, [math.sqrt(square) for square in squares], len(words)


def _ngrams(words: Words) -> Counter[Ngram]:
    """How often each sequence of one to four words occurs."""
    tails = [words[start:] for start in range(ORDERS)]
    return Counter([ngram for n in range(1, ORDERS + 1) for ngram in zip(*tails[:n], strict=False)])


def _most(references: Sequence[Words]) -> dict[Ngram, int]:
    """The highest count of each n-gram in any one reference."""
    most: dict[Ngram, int] = {}
    for words in references:
        for ngram, count in _ngrams(words).items():
            if count > most.get(ngram, 0):
                most[ngram] = count
    return most
