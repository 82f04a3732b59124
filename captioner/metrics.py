"""Caption metrics on words: corpus BLEU (nltk). Values run from 0 to 100."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from nltk.translate.bleu_score import corpus_bleu

Words = Sequence[str]


def bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of the corpus (Papineni et al. 2002), 0 to 100, unsmoothed.

    `hypotheses[i]` is the tokenised caption of picture i, `references[i]` all its tokenised reference captions.
    Raises ValueError when the two do not match or a text stands where a list of words belongs.
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(f"{len(hypotheses)} captions for the references of {len(references)} pictures")
    if isinstance(hypotheses[0], str) or not references[0] or isinstance(references[0][0], str):
        raise ValueError("BLEU compares lists of words: give a list of words a caption, a list of those a picture")
    weights = [tuple([1.0 / n] * n) for n in range(1, 5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk warns where an n-gram order has no match; the value, 0, says it
        scores = corpus_bleu([list(r) for r in references], list(hypotheses), weights=weights)
    return [100.0 * float(score) for score in scores]
