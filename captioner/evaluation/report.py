"""An evaluation as one HTML page that needs no other file: numbers, distributions, words, pictures."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from captioner.evaluation.metrics import bleu_of_counts
from captioner.evaluation.plots import bar_chart
from captioner.evaluation.scores import METRICS, Evaluation, Picture, joined
from captioner.vocab import tokenise

_EXAMPLES = 12  # pictures a group
_ROWS = 12  # of the tables of captions and words
_LARGE_BIN = 0.05  # of the captions, that a bar of BLEU by length stands for at least


def report(
    evaluation: Evaluation,
    words: Mapping[str, Sequence[tuple[str, float]]],
    thumbnail: Callable[[str], str | None] = lambda name: None,
) -> str:
    """The page. `words` are those of a picture's caption with their probabilities, where these are known, and
    `thumbnail` a `data:` URI of the picture, both by its name.
    """
    pictures = evaluation.pictures
    scores, tokens = evaluation.scores, evaluation.tokens
    best = sorted(pictures, key=lambda picture: (-picture.cider, -picture.rouge_l, picture.name))
    chosen = random.Random(0).sample(pictures, min(_EXAMPLES, len(pictures)))

    def examples(those: Iterable[Picture]) -> str:
        cards = (_card(picture, thumbnail(picture.name), words.get(picture.name, ()), tokens) for picture in those)
        return f'<div class="cards">{"".join(cards)}</div>'

    warnings = "".join(f'<p class="warning">{escape(line)}</p>' for line in evaluation.warnings())
    return f"""{_HEAD}
<h1>How good are the captions?</h1>
<p>{scores["images"]:,} pictures, {scores["references"]:,} reference captions,
{scores["distinct"]:,} distinct captions ({100 * scores["distinct"] / scores["images"]:.1f} %).</p>
{warnings}
{_scores(evaluation)}
<section class="plots">
{_lengths(pictures, tokens)}
{_by_length(pictures, tokens)}
{_histogram("CIDEr-D of each caption", [picture.cider for picture in pictures], "CIDEr-D")}
{_histogram("ROUGE-L of each caption", [picture.rouge_l for picture in pictures], "ROUGE-L")}
</section>
<h2>Most frequent captions</h2>
{_frequent(pictures, tokens)}
<h2>{tokens.capitalize()}s</h2>
<p>Per 1,000 {tokens}s, those whose share differs most surely from that in the references (Dunning's
log-likelihood).</p>
<div class="pair">{_words(pictures, tokens)}</div>
<h2>Best captions</h2><p>By CIDEr-D, which compares a caption with the references of its picture.
{f"Under each {tokens} stands its probability in %." if any(words.values()) else ""}</p>
{examples(best[:_EXAMPLES])}
<h2>Worst captions</h2>
{examples(best[::-1][:_EXAMPLES])}
<h2>Random captions</h2>
{examples(chosen)}
<h2>Recipe</h2><p class="recipe">{escape(evaluation.recipe)}</p>
</main></html>
"""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _scores(evaluation: Evaluation) -> str:
    columns = evaluation.rows()  # they stand beside each other here, which fits the screen of a phone
    rows = [[name, *(f"{scores[metric]:.1f}" for _, scores in columns)] for metric, name in METRICS.items()]
    notes = []
    if evaluation.human:
        others, turns = evaluation.human["references_each"], evaluation.human["turns"]
        times = f", {turns} times with another one, and averaged" if turns > 1 else ""
        notes.append(
            f"Human: one reference caption of each picture is held out and compared with its other {others}{times}; "
            "the captions are compared with those same ones."
        )
    notes.append(
        f"Floor: every picture gets the reference caption “{evaluation.floor['caption']}”, the best for BLEU-4."
    )
    header = ["", *(label for label, _ in columns)]
    small = "".join(f"<p><small>{escape(note)}</small></p>" for note in notes)
    return f'<div class="scores">{_table(header, rows)}</div>{small}'


def _figure(title: str, chart: str, series: Sequence[str] = ()) -> str:
    legend = "".join(
        f'<span><i style="background:var(--series-{number})"></i>{escape(name)}</span>'
        for number, name in enumerate(series)
    )
    return f"<figure><figcaption>{escape(title)} {legend}</figcaption>{chart}</figure>"


def _lengths(pictures: Sequence[Picture], tokens: str) -> str:
    """How many words or characters captions and references have, in percent of each."""
    captions = Counter(_length(picture, tokens) for picture in pictures)
    references = Counter(len(tokenise(text, tokens)) for picture in pictures for text in picture.references)
    # The longest hundredth would push the others together.
    longest = max(*captions, math.ceil(np.percentile(list(references.elements()), 99)))
    values = range(min(*captions, *references), longest + 1)
    shares = [
        (name, [100 * counts[length] / counts.total() for length in values])
        for name, counts in (("captions", captions), ("references", references))
    ]
    chart = bar_chart([str(length) for length in values], shares, f"{tokens}s", " %")
    return _figure("Length, in % of the", chart, [name for name, _ in shares])


def _by_length(pictures: Sequence[Picture], tokens: str) -> str:
    """BLEU-4 of the captions of about the same length."""
    lengths = {picture.name: _length(picture, tokens) for picture in pictures}
    bins: list[list[Picture]] = []
    for picture in sorted(pictures, key=lambda picture: lengths[picture.name]):
        new_length = not bins or lengths[picture.name] != lengths[bins[-1][-1].name]
        if not bins or (new_length and len(bins[-1]) >= _LARGE_BIN * len(pictures)):
            bins.append([])
        bins[-1].append(picture)
    if len(bins) > 1 and len(bins[-1]) < _LARGE_BIN * len(pictures):
        last = bins.pop()
        bins[-1].extend(last)
    labels = []
    for those in bins:
        low, high = lengths[those[0].name], lengths[those[-1].name]
        labels.append(str(low) if low == high else f"{low}–{high}")
    scores = [
        float(bleu_of_counts(np.sum([picture.bleu_counts for picture in those], axis=0, dtype=np.float64))[-1])
        for those in bins
    ]
    return _figure("BLEU-4 by length of the caption", bar_chart(labels, [("BLEU-4", scores)], f"{tokens}s"))


def _length(picture: Picture, tokens: str) -> int:
    return len(tokenise(picture.caption, tokens))


def _histogram(title: str, values: Sequence[float], x_label: str) -> str:
    """How many captions have which score, in about 20 bars; the last one holds the top hundredth."""
    top = max(20.0, float(np.percentile(values, 99)))
    width = next(step for step in (1, 2, 5, 10, 20, 25, 50, 100) if top / step <= 20)
    bars = math.floor(top / width) + 1
    counts = Counter(min(bars - 1, int(value // width)) for value in values)
    shares = [100 * counts[index] / len(values) for index in range(bars)]
    chart = bar_chart([str(index * width) for index in range(bars)], [(x_label, shares)], x_label, " %")
    return _figure(f"{title}, in %", chart)


def _frequent(pictures: Sequence[Picture], tokens: str) -> str:
    counts = Counter(joined(tokenise(picture.caption, tokens), tokens) for picture in pictures)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_ROWS]
    rows = [[text, str(count), f"{100 * count / len(pictures):.1f}\u00a0%"] for text, count in ordered]
    return _table(["caption", "pictures", "share"], rows)


@dataclass(frozen=True)
class _Usage:
    word: str
    captions: float  # per 1,000 words
    references: float
    evidence: float  # Dunning's G2


def _words(pictures: Sequence[Picture], tokens: str) -> str:
    captions = Counter(word for picture in pictures for word in tokenise(picture.caption, tokens))
    texts = (text for picture in pictures for text in picture.references)
    references = Counter(word for text in texts for word in tokenise(text, tokens))
    usages = _usages(captions, references)
    tables = []
    for title, those in (
        ("Used too often", [usage for usage in usages if usage.captions > usage.references]),
        ("Used too rarely", [usage for usage in usages if usage.captions < usage.references]),
    ):
        rows = [[usage.word, f"{usage.captions:.1f}", f"{usage.references:.1f}"] for usage in those[:_ROWS]]
        tables.append(_table([tokens, "captions", "references"], rows, title))
    return "".join(tables)


def _usages(captions: Counter[str], references: Counter[str]) -> list[_Usage]:
    """All words, the one whose shares differ most surely first (log-likelihood, Dunning 1993)."""
    size, other_size = max(1, captions.total()), max(1, references.total())
    usages = []
    for word in captions.keys() | references.keys():
        count, other = captions[word], references[word]
        expected = (count + other) / (size + other_size)
        evidence = 2 * sum(n * math.log(n / (m * expected)) for n, m in ((count, size), (other, other_size)) if n)
        usages.append(_Usage(word, 1000 * count / size, 1000 * other / other_size, evidence))
    return sorted(usages, key=lambda usage: (-usage.evidence, usage.word))


def _card(picture: Picture, source: str | None, words: Sequence[tuple[str, float]], tokens: str) -> str:
    """A picture with its caption and what people wrote."""
    image = f'<img src="{source}" alt="" loading="lazy">' if source else ""
    caption = escape(picture.caption)
    if words:
        caption = ("" if tokens == "character" else " ").join(
            f'<span class="word" style="--p:{p:.3f}">{escape(word)}'
            f'<small aria-hidden="true">{100 * p:.0f}</small></span>'
            for word, p in words
        )
    references = "".join(f"<li>{escape(text)}</li>" for text in picture.references)
    return (
        f'<article>{image}<p class="caption">{caption}</p>'
        f"<p><small>CIDEr-D {picture.cider:.0f} · ROUGE-L {picture.rouge_l:.0f} · {escape(picture.name)}</small></p>"
        f"<ul>{references}</ul></article>"
    )


_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Captions, evaluated</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; --series-0: #2563c9; --series-1: #d08a1d }
@media (prefers-color-scheme: dark) { :root { --series-0: #6ea8ff; --series-1: #e5b567 } }
body { margin: 0 }
main { margin: 0 auto; max-width: 70rem; padding: 1rem }
h1 { font-size: 1.6rem; line-height: 1.2 } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem }
small { opacity: .75 }
.warning { border-left: 4px solid #d9480f; background: #d9480f22; padding: .5rem .75rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .25rem 0 }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #8884 }
th { vertical-align: bottom } td { vertical-align: top }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
.scores td, td + td { white-space: nowrap }
@media (max-width: 30rem) { table { font-size: .9rem } th { font-size: .75rem } th, td { padding: .3rem .25rem } }
.plots { display: grid; gap: 1.5rem; margin-top: 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)) }
.pair { display: flex; flex-wrap: wrap; gap: 1.5rem 4rem }
figure { margin: 0 } figcaption { font-weight: 600 }
figcaption span { font-weight: 400; margin-right: .75rem; white-space: nowrap }
figcaption i { display: inline-block; width: .8em; height: .8em; margin-right: .3em; border-radius: 2px }
svg { width: 100%; height: auto; display: block } svg text { font-size: 11px; fill: currentColor }
.grid { stroke: currentColor; stroke-opacity: .2; fill: none }
.cards { display: grid; gap: 1.5rem 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)) }
article { min-width: 0; overflow-wrap: anywhere }
article img { width: 100%; height: 12rem; object-fit: contain; background: #8882; border-radius: 6px }
article p { margin: .4rem 0 } article ul { margin: 0; padding-left: 1.1rem; font-size: .875rem; line-height: 1.35 }
.caption { font-weight: 600 }
.word { display: inline-block; text-align: center; line-height: 1.2; border-bottom: 3px solid;
  border-color: color-mix(in srgb, var(--series-0) calc(100% * var(--p)), #d9480f) }
.word small { display: block; font-size: .65rem; font-weight: 400 }
.recipe { font-family: ui-monospace, monospace; font-size: .85rem; overflow-wrap: anywhere }
</style>
<main>"""
