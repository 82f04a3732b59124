"""Two evaluations of the same pictures: is one better, or is that chance?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captioner.data.names import read_json
from captioner.errors import DataError
from captioner.evaluation.metrics import Counts, bleu_of_counts
from captioner.evaluation.scores import FORMAT, METRICS, table

_RESAMPLES = 1000
_AT_ONCE = 5_000_000  # numbers held in memory at a time


@dataclass(frozen=True)
class Difference:
    """A metric of two evaluations, with the 95 % interval of `second - first`."""

    metric: str
    first: float
    second: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def compare(first: Path, second: Path) -> list[Difference]:
    """Paired bootstrap over pictures (Koehn 2004): the same 1,000 seeded resamples for both.

    CIDEr's document frequencies stay those of all the references. Raises DataError.
    """
    (tokens, references, one), (other_tokens, other_references, other) = _read(first), _read(second)
    if tokens != other_tokens:
        raise DataError(f"{first} compares {tokens}s and {second} {other_tokens}s: evaluate both with one --tokens")
    if references != other_references:
        raise DataError(f"{first} and {second} are not of the same pictures and references: nothing to compare")
    statistics = np.stack([one, other])  # (2, N, 12)
    pictures = statistics.shape[1]
    whole = _scores(statistics.sum(1), pictures)
    differences = []
    for weights in _resamples(pictures):  # (r, N)
        scores = _scores(weights @ statistics, pictures)  # (2, r, 6)
        differences.append(scores[1] - scores[0])
    low, high = np.percentile(np.concatenate(differences), [2.5, 97.5], axis=0)
    return [
        Difference(metric, *(float(value[index]) for value in (*whole, low, high)))
        for index, metric in enumerate(METRICS)
    ]


def _resamples(pictures: int) -> Any:
    """How often each picture is drawn, (resamples, pictures), in chunks of 1,000 resamples in all."""
    generator = np.random.default_rng(0)
    chunk = max(1, min(_RESAMPLES, _AT_ONCE // pictures))
    for start in range(0, _RESAMPLES, chunk):
        rows = min(chunk, _RESAMPLES - start)
        yield generator.multinomial(pictures, np.full(pictures, 1 / pictures), size=rows).astype(np.float64)


def _scores(sums: Counts, pictures: int) -> Counts:
    """Statistics summed over pictures (..., 12) to the six metrics (..., 6), in the order of METRICS."""
    return np.concatenate([bleu_of_counts(sums[..., :10]), sums[..., 10:] / pictures], axis=-1)


def _read(file: Path) -> tuple[str, str, Counts]:
    """The kind of tokens, the hash of the references, and what adds up to the metrics: (N, 12), BLEU's counts, ROUGE-L
    and CIDEr-D of each picture.
    """
    content = read_json(file)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{file}: not written by `captioner evaluate --json` of this version")
    try:
        rows = [[*row["bleu_counts"], row["rouge_l"], row["cider"]] for row in content["pictures"]]
        statistics = np.array(rows, dtype=np.float64)
        if statistics.shape != (content["images"], 12) or not np.isfinite(statistics).all():
            raise ValueError("wrong size")
        return str(content["tokens"]), content["references_sha256"], statistics
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: damaged: not as `captioner evaluate --json` wrote it") from error


def describe(differences: list[Difference]) -> str:
    """The comparison as a table, A the first and B the second."""
    rows = [
        [
            METRICS[d.metric],
            f"{d.first:.2f}",
            f"{d.second:.2f}",
            f"{d.second - d.first:+.2f}",
            f"{d.low:+.2f} to {d.high:+.2f}",
            "" if not d.clear else "B is better" if d.low > 0 else "A is better",
        ]
        for d in differences
    ]
    return table(["", "A", "B", "B - A", "95 % interval", "beyond chance"], rows)
