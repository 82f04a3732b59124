"""Caption metrics on words: BLEU, ROUGE-L and CIDEr-D, as the captioning literature measures them.

Texts are lists of words or of characters (see `vocab.tokenise`), never strings, never ids. All values are those that
papers print: 0 to 100, only CIDEr-D can in principle reach 1000. ROUGE-L and CIDEr-D are values of one caption, and
those of a corpus are their means; BLEU is a value of a corpus and no mean of anything.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from nltk.translate.bleu_score import corpus_bleu

Words = Sequence[str]
Ngram = tuple[str, ...]
Counts = np.ndarray[Any, np.dtype[np.float64]]

ORDERS = 4  # n-grams of one to four words, in BLEU and in CIDEr-D
_ROUGE_BETA = 1.2  # of coco-caption: recall counts a little more than precision
_CIDER_SIGMA = 6.0


def bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of a corpus (Papineni et al. 2002), 0 to 100, unsmoothed: nltk's `corpus_bleu`.

    `hypotheses[i]` is the tokenised caption of picture i, `references[i]` all its tokenised reference captions.
    Raises ValueError when the two do not match or a text stands where a list of words belongs.
    """
    _check(hypotheses, references)
    weights = [tuple([1.0 / n] * n) for n in range(1, ORDERS + 1)]

    # nltk counts a caption shorter than n as one n-gram that did not match. It has none, and coco-caption
    # counts none.
    too_short = [sum(len(words) < n for words in hypotheses) for n in range(1, ORDERS + 1)]

    def without_missing(precisions: Sequence[Fraction], **_: Any) -> list[float]:
        matches = [precision.numerator for precision in precisions]
        totals = [precision.denominator - short for precision, short in zip(precisions, too_short, strict=True)]
        # nltk leaves a zero out of the mean, which would raise the value: the smallest number stands for it.
        return [m / t if m else sys.float_info.min for m, t in zip(matches, totals, strict=True)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk warns where an n-gram order has no match; the value, 0, says it
        scores = corpus_bleu(
            [list(those) for those in references], list(hypotheses), weights, smoothing_function=without_missing
        )
    return [100.0 * float(score) for score in scores]


def _check(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """Raise ValueError for what nltk would quietly score as something else."""
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(f"{len(hypotheses)} captions for the references of {len(references)} pictures")
    for words, those in zip(hypotheses, references, strict=True):
        if not those:
            raise ValueError("a picture has no reference captions")
        if any(isinstance(text, str) for text in (words, *those)):
            raise ValueError("captions are lists of words here, and each picture has a list of those")


def bleu_counts(hypothesis: Words, references: Sequence[Words]) -> list[int]:
    """What a caption adds to corpus BLEU: matched n-grams of order 1 to 4, its n-grams of order 1 to 4, its length,
    and the length of the reference closest to it (the shorter of two equally close): 10 numbers.
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

    The same values as `bleu`, sooner, and from numbers that can be added up for any selection of pictures.
    """
    matches, totals = counts[..., :ORDERS], counts[..., ORDERS : 2 * ORDERS]
    length, closest = counts[..., 2 * ORDERS], counts[..., 2 * ORDERS + 1]
    with np.errstate(divide="ignore"):  # log 0 is minus infinity, whose exponential is the right value, 0
        logs = np.log(matches / np.maximum(totals, 1)).cumsum(-1) / np.arange(1, ORDERS + 1)
        brevity = np.minimum(0.0, 1.0 - closest / np.maximum(length, 1))
    result: Counts = 100.0 * np.exp(brevity[..., None] + logs)
    return result


def smoothed_bleu(counts: Sequence[int]) -> float:
    """BLEU-4 of one caption from its `bleu_counts`, 0 to 100, one added to the counts of order 2 to 4.

    Lin and Och 2004. It ranks captions; its mean is not the BLEU of a corpus.
    """
    smoothed = np.array(counts, dtype=np.float64)
    for order in range(1, ORDERS):
        smoothed[[order, ORDERS + order]] += 1.0
    return float(bleu_of_counts(smoothed)[-1])


def best_constant_caption(references: Sequence[Sequence[Words]]) -> list[str]:
    """Of all reference captions, the one with the highest BLEU-4 when every picture gets it.

    Exact: the matches of a caption in a corpus are the sum, over its n-grams, of the number of pictures that have
    them, so that each candidate costs no more than its own n-grams. Of equal ones, the first in the alphabet.
    """
    pictures_with: Counter[Ngram] = Counter()
    pictures_with_more: Counter[tuple[Ngram, int]] = Counter()  # with a second one, a third one, ...
    for those in references:
        most = _most(those)
        pictures_with.update(most.keys())
        pictures_with_more.update((ngram, nth) for ngram, count in most.items() for nth in range(2, count + 1))
    candidates = sorted({tuple(words) for those in references for words in those})
    counts = np.zeros((len(candidates), 2 * ORDERS + 2))
    for row, words in zip(counts, candidates, strict=True):
        matches = [0] * ORDERS
        for ngram, count in _ngrams(words).items():
            matches[len(ngram) - 1] += pictures_with[ngram]
            for nth in range(2, count + 1):
                matches[len(ngram) - 1] += pictures_with_more[ngram, nth]
        row[:ORDERS] = matches
    lengths = np.array([len(words) for words in candidates])
    for n in range(ORDERS):
        counts[:, ORDERS + n] = len(references) * np.maximum(0, lengths - n)
    counts[:, 2 * ORDERS] = len(references) * lengths
    counts[:, 2 * ORDERS + 1] = _closest_lengths(lengths, references)
    # BLEU-4 first, then 3, 2, 1; rounded, as equal ones may differ in their last bits.
    scores = [tuple(row) for row in bleu_of_counts(counts)[:, ::-1].round(9).tolist()]
    return list(candidates[scores.index(max(scores))])


def _closest_lengths(lengths: Any, references: Sequence[Sequence[Words]]) -> Any:
    """For each length, that of the closest reference (of two, the shorter), summed over the pictures."""
    every = np.array([len(words) for those in references for words in those])
    starts = np.cumsum([0, *(len(those) for those in references[:-1])])
    base = every.max() + 1  # one number for two: how far, then how long
    sums = {
        length: (np.minimum.reduceat(np.abs(every - length) * base + every, starts) % base).sum()
        for length in set(lengths.tolist())
    }
    return [sums[length] for length in lengths.tolist()]


def rouge_l(hypothesis: Words, references: Sequence[Words]) -> float:
    """ROUGE-L of one caption (Lin 2004), 0 to 100, as coco-caption has it: the F-measure (beta 1.2) of the best
    precision and the best recall that the longest common subsequences with the references give.
    """
    common = [(longest_common_subsequence(hypothesis, words), len(words)) for words in references if words]
    if not any(shared for shared, _ in common):
        return 0.0
    precision = max(shared for shared, _ in common) / len(hypothesis)
    recall = max(shared / length for shared, length in common)
    weight = _ROUGE_BETA**2
    return 100.0 * (1.0 + weight) * precision * recall / (recall + weight * precision)


def longest_common_subsequence(first: Words, second: Words) -> int:
    """Its length. One bit a word of `first` (Hyyrö 2004): a row of the usual table is one addition of integers."""
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    every = (1 << len(first)) - 1
    row = every  # a zero bit for each place where the table's row steps up by one
    for word in second:
        matching = row & places.get(word, 0)
        row = (row + matching | row - matching) & every
    return len(first) - row.bit_count()


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many documents each n-gram occurs; CIDEr's document is all the references of one picture."""

    counts: Mapping[Ngram, int]
    documents: int

    @classmethod
    def of(cls, references: Iterable[Sequence[Words]]) -> DocumentFrequencies:
        """Those of a corpus: `references[i]` are the tokenised captions of picture i."""
        counts: Counter[Ngram] = Counter()
        documents = 0
        for those in references:
            counts.update(set().union(*map(_ngrams, those)))
            documents += 1
        return cls(counts, documents)


class Cider:
    """CIDEr-D of captions one at a time (Vedantam et al. 2015), their references prepared once.

    `frequencies` are those of the evaluated references in a report, as the literature does it, and those of the
    training captions when the value is a reward. As in coco-caption, sigma is 6.
    With a single document every n-gram weighs nothing, and every value is 0. Raises ValueError for no document.
    """

    def __init__(self, references: Sequence[Sequence[Words]], frequencies: DocumentFrequencies) -> None:
        if not frequencies.documents:
            raise ValueError("CIDEr-D needs document frequencies of at least one picture's references")
        self._unseen = math.log(frequencies.documents)  # the weight of an n-gram that no document has
        self._seen = {ngram: self._unseen - math.log(count) for ngram, count in frequencies.counts.items()}
        self._references = [[self._vector(words) for words in those] for those in references]

    def score(self, picture: int, words: Words) -> float:
        """CIDEr-D of a caption for the picture whose references were number `picture`, as papers print it (100 x)."""
        vector, norms, length = self._vector(words)
        total = 0.0
        for other, other_norms, other_length in self._references[picture]:
            products = [0.0] * ORDERS
            for ngram, weight in vector.items():
                if ngram in other:
                    products[len(ngram) - 1] += min(weight, other[ngram]) * other[ngram]
            # Where a norm is 0, so is the product.
            cosines = (p / (n * m) for p, n, m in zip(products, norms, other_norms, strict=True) if n and m)
            total += sum(cosines) * math.exp(-((length - other_length) ** 2) / (2 * _CIDER_SIGMA**2))
        # The mean over n-gram orders and references, times the 10 of the paper, times 100.
        return 1000.0 * total / (ORDERS * len(self._references[picture]))

    def _vector(self, words: Words) -> tuple[dict[Ngram, float], list[float], int]:
        """The tf-idf weight of each n-gram, the norm of that vector for each order, the number of words."""
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
    """How often each n-gram occurs in the reference that has it most often."""
    most: dict[Ngram, int] = {}
    for words in references:
        for ngram, count in _ngrams(words).items():
            if count > most.get(ngram, 0):
                most[ngram] = count
    return most
