"""How far the confidence of captions can be relied on: reliability, and what is left when only the surest speak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from captioner.evaluation.support import TWO_THIRDS, Support
from captioner.vocab import tokenise

if TYPE_CHECKING:
    from captioner.evaluation.scores import ScoredCaption

BINS = 10
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the captions, the surest first


def reliability(
    pictures: Sequence[ScoredCaption], tokens: str, confidence: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    """What the captions' support by references is, in percent, and how their confidence goes with it.

    `support` is the share of content words that the references have, `right` the share of captions of which they have
    two thirds, and `human_support` the support of each picture's first reference by its others. Where `confidence` has
    confidence and familiarity of the pictures by name, there is also the expected calibration `error` in points, over
    bins of as many captions each; `bins` of (confidence, right); and `surest`, of (share of captions, support, right),
    first by confidence.
    """
    references = [[tokenise(text, tokens) for text in picture.references] for picture in pictures]
    captions = [tokenise(picture.caption, tokens) for picture in pictures]
    scale = Support(references)
    share = np.array([scale.share(*each) for each in zip(captions, references, strict=True)])
    right = share >= TWO_THIRDS
    found: dict[str, Any] = {"support": 100 * float(share.mean()), "right": 100 * float(right.mean())}
    people = [scale.share(first, others) for first, *others in references if others]
    if people:
        found["human_support"] = 100 * float(np.mean(people))
    if not pictures or any(picture.name not in confidence for picture in pictures):
        return found
    sure = np.array([confidence[picture.name][0] for picture in pictures])
    error, bins = calibration(sure, right)
    order = np.argsort(sure, kind="stable")
    numbers = [(part, order[::-1][: max(1, round(part * len(order)))]) for part in SHARES]
    surest = [
        (100 * part, 100 * float(share[those].mean()), 100 * float(right[those].mean())) for part, those in numbers
    ]
    return {**found, "error": error, "bins": bins, "surest": surest}


def calibration(probability: npt.ArrayLike, right: npt.ArrayLike) -> tuple[float, list[tuple[float, float]]]:
    """The expected calibration error of probabilities (N,) of what was right (N,), in percent points, and its bins.

    The bins have as many captions each, and are pairs of (mean probability, share that was right) in percent.
    """
    said, so = np.asarray(probability, float), np.asarray(right, float)
    parts = [part for part in np.array_split(np.argsort(said, kind="stable"), BINS) if len(part)]
    bins = [(100 * float(said[part].mean()), 100 * float(so[part].mean())) for part in parts]
    gaps = [len(part) * abs(mean - share) for part, (mean, share) in zip(parts, bins, strict=True)]
    return sum(gaps) / len(said), bins
