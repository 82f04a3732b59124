"""Retrieval: how high the right picture comes for a sentence, and the right sentence for a picture.

As the literature of this task measures it (Hodosh et al. 2013, "Framing image description as a ranking task"): R@K is
the share of queries, in percent, with a right answer among the first K, beside the median rank of the first right one.
Shapes: P pictures, S sentences, D size of the space.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Ranks = NDArray[np.int64]
AT = (1, 5, 10)
DIRECTIONS = ("picture_by_sentence", "sentence_by_picture")
_BLOCK = 1024  # queries at a time, so that memory does not grow with the square of the set


def ranks(sentences: Vectors, pictures: Vectors, owner: NDArray[np.int64]) -> tuple[Ranks, Ranks]:
    """The rank of the right picture for each sentence, (S,), and of the first right sentence for each picture, (P,).

    `sentences` (S, D) and `pictures` (P, D) are unit vectors, and sentence s is of picture `owner[s]`. Ranks begin at
    1. Wrong answers that score the same as the right one come before it, so that vectors which are all alike find
    nothing. The rank of a picture without a sentence is 0.
    """
    by_sentence, by_picture = np.zeros(len(sentences), np.int64), np.zeros(len(pictures), np.int64)
    for begin in range(0, len(sentences), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        scores = sentences[part] @ pictures.T
        right = scores[np.arange(len(scores)), owner[part]]
        by_sentence[part] = (scores >= right[:, None]).sum(1)  # the right one is one of them
    for begin in range(0, len(pictures), _BLOCK):
        scores = pictures[begin : begin + _BLOCK] @ sentences.T
        own = owner == np.arange(begin, begin + len(scores))[:, None]
        best = np.where(own, scores, -np.inf).max(1, initial=-np.inf)
        found = 1 + ((scores >= best[:, None]) & ~own).sum(1)
        by_picture[begin : begin + _BLOCK] = np.where(own.any(1), found, 0)
    return by_sentence, by_picture


def recalls(found: Ranks) -> dict[str, float]:
    """R@1, R@5 and R@10 in percent, and the median rank."""
    found = found[found > 0]
    shares = {f"r{k}": round(100.0 * float((found <= k).mean()), 2) for k in AT}
    return {**shares, "median": float(np.median(found))}


def retrieval_scores(sentences: Vectors, pictures: Vectors, owner: NDArray[np.int64]) -> dict[str, Any]:
    """Both directions of `recalls`, and `recall`, the mean of all their R@K. Arguments as for `ranks`."""
    found = {name: recalls(of) for name, of in zip(DIRECTIONS, ranks(sentences, pictures, owner), strict=True)}
    mean = sum(scores[f"r{k}"] for scores in found.values() for k in AT) / (2 * len(AT))
    return {**found, "recall": round(mean, 2), "pictures": len(pictures), "sentences": len(sentences)}
