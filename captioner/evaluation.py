"""Captions against references: the scores of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from captioner.metrics import bleu
from captioner.vocab import tokenise


def score_captions(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Scores of captions as written, `references[i]` being all that people wrote for picture i.

    Both are lower-cased and stripped of punctuation the same way and compared as words, never as ids, so that a
    word outside the vocabulary can match nothing.
    """
    hypotheses = [tokenise(caption) for caption in captions]
    scores = bleu(hypotheses, [[tokenise(reference) for reference in those] for those in references])
    return {
        **{f"bleu_{n}": score for n, score in enumerate(scores, start=1)},
        "images": len(captions),
        "references": sum(len(those) for those in references),
        "distinct": len({" ".join(words) for words in hypotheses}),
    }
