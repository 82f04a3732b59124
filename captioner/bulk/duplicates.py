"""Pictures that are the same or nearly so, as groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from captioner.bulk.index import Floats, Numbers

_ROWS = 256  # of the table of all products, computed at a time
_PAIRS = 2048  # that are looked at more closely at a time


def grouped(
    vectors: Floats, features_of: Callable[[Numbers], Floats], rough: float, threshold: float
) -> list[dict[int, float]]:
    """Groups of at least two places in `vectors`, each with the largest similarity to another one in its group.

    Pairs that are similar by `rough` in their vectors (N, D), which is quick, are compared by their features (M, F), of
    which `features_of` gives unit vectors. Groups grow by any pair that reaches the `threshold` there.
    """
    group = np.arange(len(vectors))
    best = np.zeros(len(vectors))
    for start in range(0, len(vectors), _ROWS):
        rows, columns = np.nonzero(vectors[start : start + _ROWS] @ vectors[start:].T >= rough)
        first, second = (each[columns > rows] + start for each in (rows, columns))
        # What is in one group already need not be compared.
        while len(apart := np.flatnonzero(group[first] != group[second])):
            first, second = first[apart], second[apart]
            some, other = first[:_PAIRS], second[:_PAIRS]
            first, second = first[_PAIRS:], second[_PAIRS:]
            places, where = np.unique(np.concatenate([some, other]), return_inverse=True)
            features = features_of(places)
            same = np.einsum("nf,nf->n", features[where[: len(some)]], features[where[len(some) :]])
            for i, j, similarity in zip(some.tolist(), other.tolist(), same.tolist(), strict=True):
                if similarity >= threshold:
                    best[[i, j]] = np.maximum(best[[i, j]], similarity)
                    if group[i] != group[j]:
                        group[group == group[j]] = group[i]
    found: dict[int, dict[int, float]] = defaultdict(dict)
    for place in np.flatnonzero(best).tolist():
        found[int(group[place])][place] = float(best[place])
    return [*found.values()]
