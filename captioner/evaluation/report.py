"""An evaluation as one HTML page that needs no other file: scores, distributions, words and examples."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from captioner.evaluation.metrics import Words, bleu_of_counts
from captioner.evaluation.plots import bar_chart
from captioner.evaluation.retrieval import AT, DIRECTIONS, Retrieval
from captioner.evaluation.scores import METRICS, Evaluation, ScoredCaption, joined, span
from captioner.pictures.load import thumbnail
from captioner.templates import render
from captioner.vocab import tokenise

_EXAMPLES = 12  # pictures in each group
_ROWS = 12  # of the tables of captions and words
_LENGTH = 8  # the place of a caption's length in its `bleu_counts`
_LARGE_BIN = 0.05  # the least share of the captions in a bar of BLEU by length

# The title of a chart, and the arguments of `bar_chart`.
Figure: TypeAlias = tuple[str, list[str], list[tuple[str, list[float]]], str, str]


def report(evaluation: Evaluation, preview: Callable[[Path], str | None] = thumbnail) -> Iterator[str]:
    """The page, piece by piece. `preview` makes the `data:` URI of a picture, or None if it cannot be shown."""
    pictures, tokens = evaluation.pictures, evaluation.tokens
    captions = [tokenise(picture.caption, tokens) for picture in pictures]
    references = [tokenise(text, tokens) for picture in pictures for text in picture.references]
    best = sorted(pictures, key=lambda picture: (-picture.cider, -picture.rouge_l, picture.name))
    drawn = random.Random(0).sample(pictures, min(_EXAMPLES, len(pictures)))
    columns = evaluation.rows()  # as columns the table fits the screen of a phone
    usages = _usages(*(Counter(chain(*texts)) for texts in (captions, references)))
    return render(
        "report.html",
        evaluation=evaluation,
        preview=preview,
        bar_chart=bar_chart,
        columns=[label for label, _ in columns],
        score_rows=[[name, *(scores[metric] for _, scores in columns)] for metric, name in METRICS.items()],
        figures=[
            _lengths(captions, references, tokens),
            _by_length(pictures, tokens),
            _histogram("CIDEr-D", [picture.cider for picture in pictures]),
            _histogram("ROUGE-L", [picture.rouge_l for picture in pictures]),
            *_reliable(evaluation.reliability),
        ],
        frequent=_frequent(captions, tokens),
        usage=[
            ("Used too often", [usage[:3] for usage in usages if usage.captions > usage.references][:_ROWS]),
            ("Used too rarely", [usage[:3] for usage in usages if usage.captions < usage.references][:_ROWS]),
        ],
        examples=[("Best", best[:_EXAMPLES]), ("Worst", best[::-1][:_EXAMPLES]), ("Random", drawn)],
    )


def retrieval_report(evaluation: Retrieval, preview: Callable[[Path], str | None] = thumbnail) -> Iterator[str]:
    """The page of a retrieval evaluation, piece by piece, with some of the best, the worst and of all queries."""
    best = sorted(evaluation.queries, key=lambda query: (query.rank, query.name, query.sentence))
    shuffled = random.Random(0).sample(best, len(best))
    # Many queries find their picture first, and neighbours in the order of names would be of the same pictures.
    first = [query for query in shuffled if query.rank == best[0].rank]
    examples = ("Best queries", first), ("Worst queries", best[::-1]), ("Random queries", shuffled)
    return render(
        "retrieval.html",
        evaluation=evaluation,
        scores=evaluation.scores,
        at=AT,
        directions=DIRECTIONS,
        preview=cache(preview),
        shown=lambda query: query.found if query.name in query.found else (*query.found, query.name),
        examples=[(title, queries[:_EXAMPLES]) for title, queries in examples],
    )


def _lengths(captions: Sequence[Words], references: Sequence[Words], tokens: str) -> Figure:
    """The share of captions, and of references, that have each length."""
    counts = [Counter(len(words) for words in texts) for texts in (captions, references)]
    # The longest hundredth of the references would squeeze the other bars.
    longest = max(*counts[0], math.ceil(np.percentile(list(counts[1].elements()), 99)))
    values = range(min(*counts[0], *counts[1]), longest + 1)
    shares = [[100 * those[length] / those.total() for length in values] for those in counts]
    series = list(zip(("captions", "references"), shares, strict=True))
    return "Length, in % of the", list(map(str, values)), series, f"{tokens}s", " %"


def _by_length(pictures: Sequence[ScoredCaption], tokens: str) -> Figure:
    """BLEU-4 of captions of about the same length. A bin with too few captions is joined with its neighbour."""
    enough, length = _LARGE_BIN * len(pictures), itemgetter(_LENGTH)
    bins: list[list[tuple[int, ...]]] = []
    for counts in sorted((picture.bleu_counts for picture in pictures), key=length):
        if not bins or (length(counts) != length(bins[-1][-1]) and len(bins[-1]) >= enough):
            bins.append([])
        bins[-1].append(counts)
    if len(bins) > 1 and len(bins[-1]) < enough:
        last = bins.pop()
        bins[-1].extend(last)
    labels = [span(list(map(length, those)), "–") for those in bins]
    scores = [float(bleu_of_counts(np.array(those, dtype=np.float64).sum(0))[-1]) for those in bins]
    return "BLEU-4 by length of the caption", labels, [("BLEU-4", scores)], f"{tokens}s", ""


def _histogram(metric: str, values: Sequence[float]) -> Figure:
    """The share of captions with each score, in about 20 bars; the last one includes the highest hundredth."""
    top = max(20.0, float(np.percentile(values, 99)))
    width = next(step for step in (1, 2, 5, 10, 20, 25, 50, 100) if top / step <= 20)
    bars = math.floor(top / width) + 1
    counts = Counter(min(bars - 1, int(value // width)) for value in values)
    shares = [100 * counts[index] / len(values) for index in range(bars)]
    labels = [str(index * width) for index in range(bars)]
    return f"{metric} of each caption, in %", labels, [(metric, shares)], metric, " %"


def _reliable(found: Mapping[str, Any]) -> list[Figure]:
    """Whether confidence is right, and what is left when only the surest captions are written."""
    if "bins" not in found:
        return []
    sure, right = zip(*found["bins"], strict=True)
    shares, support, of_surest = zip(*found["surest"], strict=True)
    labels = [str(place) for place in range(1, len(sure) + 1)]
    pair = [("confidence", list(sure)), ("captions that are right", list(right))]
    left = [("words that references have", list(support)), ("captions that are right", list(of_surest))]
    tenths = "tenth of the captions, the surest last"
    return [
        ("Confidence, and captions that are right, in %", labels, pair, tenths, " %"),
        ("What the surest captions say, in %", [f"{share:g} %" for share in shares], left, "of the captions", " %"),
    ]


def _frequent(captions: Sequence[Words], tokens: str) -> list[list[Any]]:
    counts = Counter(joined(words, tokens) for words in captions)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_ROWS]
    return [[text, count, f"{100 * count / len(captions):.1f}\u00a0%"] for text, count in ordered]


class _Usage(NamedTuple):
    word: str
    captions: float  # per 1,000 words
    references: float
    evidence: float  # Dunning's G2


def _usages(captions: Counter[str], references: Counter[str]) -> list[_Usage]:
    """All words; first those whose shares differ most significantly (log-likelihood ratio, Dunning 1993)."""
    size, other_size = max(1, captions.total()), max(1, references.total())
    usages = []
    for word in captions.keys() | references.keys():
        count, other = captions[word], references[word]
        expected = (count + other) / (size + other_size)
        evidence = 2 * sum(n * math.log(n / (m * expected)) for n, m in ((count, size), (other, other_size)) if n)
        usages.append(_Usage(word, 1000 * count / size, 1000 * other / other_size, evidence))
    return sorted(usages, key=lambda usage: (-usage.evidence, usage.word))
