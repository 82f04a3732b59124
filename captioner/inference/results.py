"""What captioning gives: captions, what is inside them, and plain rows for files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

from captioner.inference.explanation import Branch, Step


@dataclass(frozen=True)
class Caption:
    """A sentence for a picture, and what the model thinks of it.

    `probabilities[i]` is the model's probability of `tokens[i]` after those before it, `end_probability` that of
    stopping there (None when the length limit cut the caption off). Together they multiply to exp(`logprob`).
    """

    text: str  # as a person would read it
    tokens: tuple[str, ...]  # the words as the model wrote them
    probabilities: tuple[float, ...]
    end_probability: float | None
    logprob: float  # natural logarithm
    alternatives: tuple[Caption, ...] = ()  # the picture's other captions, best first

    @property
    def finished(self) -> bool:
        """Whether the model ended the sentence itself, before the length limit."""
        return self.end_probability is not None

    @property
    def mean_probability(self) -> float:
        """The geometric mean of the probabilities of all words and of the end: how sure the model is, 0 to 1."""
        return math.exp(self.logprob / (len(self.tokens) + self.finished))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Explanation:
    """What there is to see inside a caption; `explanation` says how it is made."""

    caption: Caption
    steps: tuple[Step, ...]  # one a word, and one for the end where the model ended the sentence itself
    beam: tuple[tuple[Branch, ...], ...]  # the hypotheses at each step, best first; empty without a beam


@dataclass(frozen=True)
class FileResult:
    """What became of one picture of many: its caption, or the reason why there is none."""

    path: str
    caption: Caption | None
    error: str | None = None


def row_of(result: FileResult) -> Row:
    """A result as plain data: what the journal holds and the jsonl format shows."""
    if result.caption is None:
        return {"path": result.path, "error": result.error}
    row: Row = {"path": result.path, **_caption_row(result.caption)}
    if result.caption.alternatives:
        row["alternatives"] = [_caption_row(other) for other in result.caption.alternatives]
    return row


def _caption_row(caption: Caption) -> Row:
    words = zip(caption.tokens, caption.probabilities, strict=True)
    return {
        "caption": caption.text,
        "logprob": caption.logprob,
        "finished": caption.finished,
        "words": [{"word": word, "probability": probability} for word, probability in words],
        "end_probability": caption.end_probability,
    }


Row: TypeAlias = dict[str, Any]  # what `writers.row_of` makes of a result
