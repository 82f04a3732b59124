"""An evaluation as one HTML page that needs no other file: scores, distributions, words and examples."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from captioner.evaluation.metrics import Words, bleu_of_counts
from captioner.evaluation.plots import bar_chart
from captioner.evaluation.scores import METRICS, Evaluation, ScoredCaption, joined
from captioner.pictures.load import thumbnail
from captioner.templates import render
from captioner.vocab import tokenise

_EXAMPLES = 12  # pictures in each group
_ROWS = 12  # of the tables of captions and words
_LARGE_BIN = 0.05  # the least share of the captions in a bar of BLEU by length

Figure: TypeAlias = dict[str, Any]  # title, chart (SVG), and the legend: names of the series


def report(evaluation: Evaluation, preview: Callable[[Path], str | None] = thumbnail) -> Iterator[str]:
    """The page, piece by piece. `preview` makes the `data:` URI of a picture, or None if it cannot be shown."""
    pictures, tokens = evaluation.pictures, evaluation.tokens
    captions = [tokenise(picture.caption, tokens) for picture in pictures]
    references = [tokenise(text, tokens) for picture in pictures for text in picture.references]
    best = sorted(pictures, key=lambda picture: (-picture.cider, -picture.rouge_l, picture.name))
    drawn = random.Random(0).sample(pictures, min(_EXAMPLES, len(pictures)))
    columns = evaluation.rows()  # as columns the table fits the screen of a phone

    def card(picture: ScoredCaption) -> dict[str, Any]:
        file = evaluation.files.get(picture.name)
        return {
            **vars(picture),
            "image": file and preview(file),
            "words": evaluation.words.get(picture.name, ()),
        }

    return render(
        "report.html",
        scores=evaluation.scores,
        warnings=evaluation.warnings(),
        columns=[label for label, _ in columns],
        score_rows=[[name, *(f"{row[metric]:.1f}" for _, row in columns)] for metric, name in METRICS.items()],
        human=evaluation.human,
        floor=evaluation.floor["caption"],
        figures=[
            _lengths(captions, references, tokens),
            _by_length(pictures, captions, tokens),
            _histogram("CIDEr-D", [picture.cider for picture in pictures]),
            _histogram("ROUGE-L", [picture.rouge_l for picture in pictures]),
        ],
        frequent=_frequent(captions, tokens),
        tokens=tokens,
        usage=_usage_tables(captions, references),
        with_words=any(evaluation.words.values()),
        space="" if tokens == "character" else " ",
        examples=[
            (title, map(card, those))
            for title, those in (("Best", best[:_EXAMPLES]), ("Worst", best[::-1][:_EXAMPLES]), ("Random", drawn))
        ],
        recipe=evaluation.recipe,
    )


def _lengths(captions: Sequence[Words], references: Sequence[Words], tokens: str) -> Figure:
    """The share of captions, and of references, that have each length."""
    counts = [Counter(len(words) for words in texts) for texts in (captions, references)]
    # The longest hundredth of the references would squeeze the other bars.
    longest = max(*counts[0], math.ceil(np.percentile(list(counts[1].elements()), 99)))
    values = range(min(*counts[0], *counts[1]), longest + 1)
    names = ["captions", "references"]
    shares = [[100 * those[length] / those.total() for length in values] for those in counts]
    chart = bar_chart([str(length) for length in values], list(zip(names, shares, strict=True)), f"{tokens}s", " %")
    return {"title": "Length, in % of the", "chart": chart, "legend": names}


def _by_length(pictures: Sequence[ScoredCaption], captions: Sequence[Words], tokens: str) -> Figure:
    """BLEU-4 of captions of about the same length. A bin with too few captions is joined with its neighbour."""
    bins: list[list[tuple[int, ScoredCaption]]] = []
    by_length = zip(map(len, captions), pictures, strict=True)
    for length, picture in sorted(by_length, key=lambda item: item[0]):
        if not bins or (length != bins[-1][-1][0] and len(bins[-1]) >= _LARGE_BIN * len(pictures)):
            bins.append([])
        bins[-1].append((length, picture))
    if len(bins) > 1 and len(bins[-1]) < _LARGE_BIN * len(pictures):
        last = bins.pop()
        bins[-1].extend(last)
    ranges = [(those[0][0], those[-1][0]) for those in bins]
    labels = [str(low) if low == high else f"{low}–{high}" for low, high in ranges]
    counts = [np.array([picture.bleu_counts for _, picture in those], dtype=np.float64).sum(0) for those in bins]
    chart = bar_chart(labels, [("BLEU-4", [float(bleu_of_counts(sums)[-1]) for sums in counts])], f"{tokens}s")
    return {"title": "BLEU-4 by length of the caption", "chart": chart, "legend": []}


def _histogram(metric: str, values: Sequence[float]) -> Figure:
    """The share of captions with each score, in about 20 bars; the last one includes the highest hundredth."""
    top = max(20.0, float(np.percentile(values, 99)))
    width = next(step for step in (1, 2, 5, 10, 20, 25, 50, 100) if top / step <= 20)
    bars = math.floor(top / width) + 1
    counts = Counter(min(bars - 1, int(value // width)) for value in values)
    shares = [100 * counts[index] / len(values) for index in range(bars)]
    chart = bar_chart([str(index * width) for index in range(bars)], [(metric, shares)], metric, " %")
    return {"title": f"{metric} of each caption, in %", "chart": chart, "legend": []}


def _frequent(captions: Sequence[Words], tokens: str) -> list[list[str]]:
    counts = Counter(joined(words, tokens) for words in captions)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_ROWS]
    return [[text, str(count), f"{100 * count / len(captions):.1f}\u00a0%"] for text, count in ordered]


@dataclass(frozen=True)
class _Usage:
    word: str
    captions: float  # per 1,000 words
    references: float
    evidence: float  # Dunning's G2


def _usage_tables(captions: Sequence[Words], references: Sequence[Words]) -> list[tuple[str, list[list[str]]]]:
    """The rows of two tables: words that the captions use too often, and too rarely."""
    usages = _usages(*(Counter(word for words in texts for word in words) for texts in (captions, references)))
    tables = (
        ("Used too often", [usage for usage in usages if usage.captions > usage.references]),
        ("Used too rarely", [usage for usage in usages if usage.captions < usage.references]),
    )
    return [
        (title, [[usage.word, f"{usage.captions:.1f}", f"{usage.references:.1f}"] for usage in those[:_ROWS]])
        for title, those in tables
    ]


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
