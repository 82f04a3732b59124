"""Scores of captions against references, beside yardsticks: a human caption and the best constant caption."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from captioner.errors import DataError, counted
from captioner.evaluation import metrics
from captioner.evaluation.metrics import Words
from captioner.evaluation.reliability import reliability
from captioner.vocab import tokenise

Scores: TypeAlias = dict[str, Any]
_Score: TypeAlias = tuple[list[int], float, float]  # of one caption: `metrics.bleu_counts`, ROUGE-L, CIDEr-D
METRICS = {**{f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)}, "rouge_l": "ROUGE-L", "cider": "CIDEr"}
EVALUATION_FORMAT = "captioner evaluation 1"
COMPUTES = {"torch": ["torch"], "onnx": ["onnxruntime"]}  # the packages behind each engine
_TOKENISERS = {"word": "captioner-ptb-lower-nopunct", "character": "captioner-character"}  # in the recipe

_MARKER = re.compile(r"</?\w+>")  # <end>, <unk>, </s>: a model writes these, people do not

# For few pictures the human row depends on which reference is held out, so that each one is in turn. Many pictures
# do not need this, and it would take long: with more than so many captions held out, there are no further turns.
_HELD_OUT = 5000


@dataclass(frozen=True)
class ScoredCaption:
    """The caption of a picture, and how it compares with the references."""

    name: str  # of the picture
    caption: str
    references: tuple[str, ...]
    bleu_counts: tuple[int, ...]  # see `metrics.bleu_counts`
    smoothed_bleu_4: float  # see `metrics.smoothed_bleu`
    rouge_l: float
    cider: float


@dataclass(frozen=True)
class Evaluation:
    """The scores of a set of captions, as `score_captions` returns them, beside the yardsticks.

    `human` scores one reference of each picture against its others, and `against_as_many` the evaluated captions
    against these same others; both are None if no picture has two references. `floor` is the best constant caption.
    """

    scores: Scores
    human: Scores | None
    against_as_many: Scores | None
    floor: Scores
    pictures: tuple[ScoredCaption, ...]
    references_sha256: str
    tokens: str = "word"  # what was compared: "word" or "character"
    recipe: str = ""  # one line that says how the scores came about
    problems: Mapping[str, Sequence[str]] = field(default_factory=dict)  # names of pictures left out, by problem
    words: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)  # of captions, with probabilities
    files: Mapping[str, Path] = field(default_factory=dict)  # of the pictures, where known
    confidence: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # and familiarity, by picture

    @cached_property
    def reliability(self) -> dict[str, Any]:
        """How much of the captions the references support, and what their confidence is worth."""
        return reliability(self.pictures, self.tokens, self.confidence)

    def warnings(self) -> list[str]:
        """What readers of the scores must know, one line each."""
        found = collapsed(self.scores, self.floor)
        marks = [mark[0] for picture in self.pictures if (mark := _MARKER.search(picture.caption))]
        if marks:
            found.append(
                f"{counted(len(marks), 'caption')} with marks such as {marks[0]}, which count as words: take them out"
            )
        return found

    def rows(self) -> list[tuple[str, Scores]]:
        """The scores and their yardsticks, each with the name of its row."""
        rows = [("captions", self.scores)]
        if self.human and self.against_as_many:
            others = f"{self.human['references_each']} references"
            rows += [(f"captions, {others}", self.against_as_many), (f"human, {others}", self.human)]
        return [*rows, ("floor, one caption", self.floor)]

    def table(self) -> str:
        """The rows as a Markdown table."""
        cells = [[label, *(f"{scores[metric]:.1f}" for metric in METRICS)] for label, scores in self.rows()]
        return markdown_table(["", *METRICS.values()], cells)

    def to_json(self) -> str:
        """The evaluation as JSON with one picture a line. The same evaluation gives the same bytes."""
        yardsticks = {name: getattr(self, name) for name in ("against_as_many", "human", "floor")}
        said = {"problems": dict(self.problems), "warnings": self.warnings(), "recipe": self.recipe}
        head = {"format": EVALUATION_FORMAT, "tokens": self.tokens, **self.scores, **yardsticks, **said}
        head |= {"references_sha256": self.references_sha256, "reliability": self.reliability}
        names = ("name", "caption", "smoothed_bleu_4", "rouge_l", "cider", "bleu_counts")  # not the references
        rows = ({name: getattr(picture, name) for name in names} for picture in self.pictures)
        lines = ",\n".join("    " + json.dumps(row) for row in rows)
        return json.dumps(head, indent=2)[:-2] + f',\n  "pictures": [\n{lines}\n  ]\n}}\n'


def collapsed(scores: Scores, floor: Scores) -> list[str]:
    """How captions show that they hardly depend on the picture, one line each: nearly all alike, or at the floor.

    `scores` are those of `score_captions`; of `floor` the "caption" counts, which is the same for all pictures, and its
    "bleu_4".
    """
    found = []
    images, distinct = scores["images"], scores["distinct"]
    if distinct < 0.2 * images:
        few = f"only {counted(distinct, 'distinct caption')} for {counted(images, 'picture')}"
        found.append(f"{few}: the captions hardly depend on the picture")
    over_floor = scores["bleu_4"] - floor["bleu_4"]
    if over_floor < 2.0:
        found.append(
            f"BLEU-4 {scores['bleu_4']:.1f} is {'within 2 points of' if over_floor > -2 else 'below'} the "
            f"{floor['bleu_4']:.1f} of one caption for every picture, {floor['caption']!r}"
        )
    return found


def floor_of(references: Sequence[Sequence[str]], tokens: str = "word") -> Scores:
    """The best caption that is the same for all pictures, and its BLEU-4; `references[i]` are those of picture i."""
    texts = [[tokenise(text, tokens) for text in those] for those in references]
    constant = metrics.best_constant_caption(texts)
    return {"caption": joined(constant, tokens), "bleu_4": metrics.bleu([constant] * len(texts), texts)[-1]}


def score_captions(captions: Sequence[str], references: Sequence[Sequence[str]], tokens: str = "word") -> Scores:
    """Scores of captions as they were written; `references[i]` are all references of picture i.

    Both are tokenised the same way (see `vocab.tokenise`) and compared as words or characters, as `tokens` says,
    never as ids: so a word outside the vocabulary matches nothing.
    """
    hypotheses = [tokenise(caption, tokens) for caption in captions]
    return _score([[tokenise(text, tokens) for text in those] for those in references], hypotheses)[0]


def score_pictures(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], tokens: str = "word"
) -> Evaluation:
    """Score captions against references, both by picture name, and compute the yardsticks.

    `tokens` means the same as in `score_captions`. The order of the pictures does not matter.
    Raises DataError if there is no caption, and KeyError for one without references.
    """
    if not captions:
        raise DataError("no picture has both references and a caption")
    names = sorted(captions)
    hypotheses = [tokenise(captions[name], tokens) for name in names]
    texts = [[tokenise(text, tokens) for text in references[name]] for name in names]
    constant = metrics.best_constant_caption(texts)
    scores, (scored, floor) = _score(texts, hypotheses, [constant] * len(names))
    human, against_as_many = _human(hypotheses, texts)
    return Evaluation(
        scores=scores,
        human=human,
        against_as_many=against_as_many,
        floor={"caption": joined(constant, tokens), **_means(floor)},
        pictures=tuple(
            ScoredCaption(name, captions[name], tuple(references[name]), tuple(n), metrics.smoothed_bleu(n), *others)
            for name, (n, *others) in zip(names, scored, strict=True)
        ),
        references_sha256=hashlib.sha256(json.dumps([names, texts]).encode()).hexdigest(),
        tokens=tokens,
    )


def _score(
    texts: Sequence[Sequence[Words]], hypotheses: Sequence[Words], *others: Sequence[Words]
) -> tuple[Scores, list[list[_Score]]]:
    """The scores of captions, with BLEU from nltk; and those of each one of them, and of each one in `others`."""
    bleus = metrics.bleu(hypotheses, texts)  # first, since it checks both
    scored = _scored(texts, hypotheses, *others)
    about = {"images": len(texts), "references": sum(map(len, texts)), "distinct": len(set(map(tuple, hypotheses)))}
    return {**_means(scored[0]), **dict(zip(METRICS, bleus, strict=False)), **about}, scored


def _scored(texts: Sequence[Sequence[Words]], *several: Sequence[Words]) -> list[list[_Score]]:
    """Score several sets of tokenised captions, each with one caption for each picture."""
    cider = metrics.Cider(texts.__getitem__, metrics.DocumentFrequencies.of(texts))
    return [
        [
            (metrics.bleu_counts(words, those), metrics.rouge_l(words, those), cider.score(picture, words))
            for picture, (words, those) in enumerate(zip(hypotheses, texts, strict=True))
        ]
        for hypotheses in several
    ]


def _means(scored: Sequence[_Score]) -> Scores:
    """The scores of a corpus from those of its captions."""
    counts, *others = zip(*scored, strict=True)
    bleus = metrics.bleu_of_counts(np.array(counts, dtype=np.float64).sum(0)).tolist()
    return dict(zip(METRICS, [*bleus, *(math.fsum(values) / len(scored) for values in others)], strict=True))


def _human(hypotheses: Sequence[Words], texts: Sequence[Sequence[Words]]) -> tuple[Scores | None, Scores | None]:
    """Score one reference of each picture against its others, and the captions against these same others.

    In turn t, picture i with n references holds out number (i + t) mod n. The scores are means over the turns.
    """
    several = [(words, those) for words, those in zip(hypotheses, texts, strict=True) if len(those) > 1]
    if not several:
        return None, None
    counts = [len(those) for _, those in several]
    turns = min(max(counts), math.ceil(_HELD_OUT / len(several)))
    rows = []
    for turn in range(turns):
        left = [list(those) for _, those in several]
        held_out = [those.pop((place + turn) % len(those)) for place, those in enumerate(left)]
        rows.append(list(map(_means, _scored(left, held_out, [words for words, _ in several]))))
    references_each = span([count - 1 for count in counts])
    about = {"images": len(several), "references_each": references_each, "turns": turns}
    human, model = (
        {**{metric: math.fsum(row[metric] for row in those) / turns for metric in METRICS}, **about}
        for those in zip(*rows, strict=True)
    )
    return human, model


def joined(words: Words, tokens: str) -> str:
    """Tokens as one text, as they were compared. Among characters, spaces between words are tokens themselves."""
    return ("" if tokens == "character" else " ").join(words)


def span(numbers: Sequence[int], dash: str = "-") -> str:
    """ "5", or "1-5" if the numbers differ."""
    return dash.join(dict.fromkeys(map(str, (min(numbers), max(numbers)))))


def recipe(evaluation: Evaluation, source: Mapping[str, str], packages: Sequence[str]) -> str:
    """One line that says how the scores came about, like sacrebleu's signature (Post 2018).

    `source` says where the captions come from, `packages` which packages' versions matter.
    """
    parts = {
        "metrics": "bleu+rouge_l+cider_d",
        "images": evaluation.scores["images"],
        "refs": span([len(picture.references) for picture in evaluation.pictures]),
        "refs_sha": evaluation.references_sha256[:12],
        "tok": _TOKENISERS[evaluation.tokens],
        "cider_df": "refs",
        **source,
    }
    return recipe_of(parts, evaluation.problems, packages)


def recipe_of(parts: Mapping[str, object], problems: Mapping[str, Sequence[str]], packages: Sequence[str]) -> str:
    """Facts in one line, with how many pictures have each problem, and the versions of packages."""
    # A package is asked itself: what it was installed as may have another name.
    versions = {package: import_module(package).__version__ for package in packages}
    every = {**parts, **{kind: len(names) for kind, names in problems.items()}, **versions}
    return "|".join(f"{name}:{value}" for name, value in every.items())


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, the first one to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in (header, *rows)
    ]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
