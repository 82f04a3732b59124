"""What captioning returns: captions, and plain rows for files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

from captioner.inference.decoding import Hypothesis
from captioner.vocab import END, Vocabulary

# A result as plain data, as in the journal and the jsonl format: "path", then either "error", or "caption", "logprob",
# "finished", "words" (each a "word" and a "probability"), "end_probability", "confidence" and "familiar" where the
# checkpoint knows them, "unsure" (what speaks against the caption), "tags" (each a "word" and a "probability") and
# "alternatives" where there are any (a list of the same without "path").
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Tag:
    """A word that people would use of the picture, with the probability that they do."""

    word: str
    probability: float


@dataclass(frozen=True)
class Caption:
    """A sentence for a picture, and how likely the model finds it.

    `probabilities[i]` is the model's probability of `tokens[i]` after the tokens before it. `end_probability` is that
    of ending there; it is None when the length limit cut the caption off. Their product is exp(`logprob`).
    """

    text: str  # as a person would read it
    tokens: tuple[str, ...]  # the words as the model wrote them
    probabilities: tuple[float, ...]
    end_probability: float | None
    logprob: float  # natural logarithm
    alternatives: tuple[Caption, ...] = ()  # the picture's other captions, best first
    unknown: tuple[str, ...] = ()  # words of a scored sentence that the model does not know
    confidence: float | None = None  # the probability that the caption is right: see `inference/trust.py`
    familiar: float | None = None  # the probability that the picture is of the kind that the model learned from
    unsure: str = ""  # what speaks against the caption, if anything does
    tags: tuple[Tag, ...] = ()  # words for the picture, the most probable first

    @classmethod
    def of(cls, hypothesis: Hypothesis, vocabulary: Vocabulary) -> Caption:
        """A hypothesis in words."""
        words = tuple(vocabulary.words[token] for token in hypothesis.tokens if token != END)
        probabilities = tuple(math.exp(logprob) for logprob in hypothesis.token_logprobs)
        end = probabilities[-1] if hypothesis.finished else None
        text = vocabulary.text(hypothesis.tokens)
        return cls(text, words, probabilities[: len(words)], end, hypothesis.logprob)

    @property
    def finished(self) -> bool:
        """Whether the model ended the sentence itself, before the length limit."""
        return self.end_probability is not None

    @property
    def mean_probability(self) -> float:
        """How sure the model is, 0 to 1: the geometric mean of the probabilities of all words and of the end."""
        return math.exp(self.logprob / (len(self.tokens) + self.finished))

    def to_dict(self) -> Row:
        """The caption as plain data, as in a line of the jsonl format but for its path."""
        words = zip(self.tokens, self.probabilities, strict=True)
        row: Row = {
            "caption": self.text,
            "logprob": self.logprob,
            "finished": self.finished,
            "words": [{"word": word, "probability": probability} for word, probability in words],
            "end_probability": self.end_probability,
        }
        for name in ("confidence", "familiar"):
            if (value := getattr(self, name)) is not None:
                row[name] = round(value, 4)
        if self.unsure:
            row["unsure"] = self.unsure
        if self.tags:
            row["tags"] = [{"word": tag.word, "probability": round(tag.probability, 4)} for tag in self.tags]
        if self.alternatives:
            row["alternatives"] = [other.to_dict() for other in self.alternatives]
        return row

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class FileResult:
    """The result for one picture of many: its caption, or the reason why it has none."""

    path: str
    caption: Caption | None
    error: str | None = None


def row_of(result: FileResult) -> Row:
    """A result as plain data."""
    if result.caption is None:
        return {"path": result.path, **({"error": result.error} if result.error else {})}
    return {"path": result.path, **result.caption.to_dict()}
