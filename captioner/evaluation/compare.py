"""Two evaluations of the same pictures: is one better, or is the difference chance?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captioner.errors import DataError
from captioner.evaluation.metrics import Counts, bleu_of_counts
from captioner.evaluation.scores import EVALUATION_FORMAT, METRICS, markdown_table
from captioner.files import read_json

_RESAMPLES = 1000
_AT_ONCE = 5_000_000  # numbers in memory at a time


@dataclass(frozen=True)
class Difference:
    """The values of a metric in two evaluations, and the 95 % interval of `second - first`."""

    metric: str
    first: float
    second: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the difference is beyond chance: the interval does not contain 0."""
        return self.low > 0 or self.high < 0


def compare(first: str | Path, second: str | Path) -> list[Difference]:
    """Compare two files that `captioner evaluate --json` wrote: one Difference for each metric.

    The intervals come from a paired bootstrap over pictures (Koehn 2004) with 1,000 seeded resamples, the same for
    both. CIDEr-D keeps the document frequencies of all references.
    Raises DataError if a file is damaged or the two have different references, OSError if a file cannot be read.
    """
    (tokens, references, one), (other_tokens, other_references, other) = _read(Path(first)), _read(Path(second))
    if tokens != other_tokens:
        raise DataError(f"{first} compares {tokens}s and {second} {other_tokens}s: evaluate both with one --tokens")
    if references != other_references:
        raise DataError(f"{first} and {second} are not of the same pictures and references: evaluate both on the same")
    statistics = np.stack([one, other])  # (2, N, 12)
    pictures = statistics.shape[1]
    whole = _scores(statistics.sum(1), pictures)
    resampled = [_scores(weights @ statistics, pictures) for weights in _resamples(pictures)]  # (2, r, 6) each
    low, high = np.percentile(np.diff(np.concatenate(resampled, axis=1), axis=0)[0], [2.5, 97.5], axis=0)
    return [Difference(*row) for row in zip(METRICS, *np.array([*whole, low, high]).tolist(), strict=True)]


def _resamples(pictures: int) -> Any:
    """Yield how often each picture is drawn, (resamples, pictures), in chunks that add up to 1,000 resamples."""
    generator = np.random.default_rng(0)
    chunk = max(1, min(_RESAMPLES, _AT_ONCE // pictures))
    for start in range(0, _RESAMPLES, chunk):
        rows = min(chunk, _RESAMPLES - start)
        yield generator.multinomial(pictures, np.full(pictures, 1 / pictures), size=rows).astype(np.float64)


def _scores(sums: Counts, pictures: int) -> Counts:
    """Sums over the pictures of what `_read` returns (..., 12) -> the metrics (..., 6) in the order of METRICS."""
    return np.concatenate([bleu_of_counts(sums[..., :10]), sums[..., 10:] / pictures], axis=-1)


def _read(file: Path) -> tuple[str, str, Counts]:
    """The kind of tokens, the hash of the references, and the statistics of each picture (N, 12).

    The statistics are the counts of BLEU, ROUGE-L and CIDEr-D.
    """
    content = read_json(file, "a file that `captioner evaluate --json` wrote")
    if not isinstance(content, dict) or content.get("format") != EVALUATION_FORMAT:
        raise DataError(f"{file}: not written by `captioner evaluate --json` of this version")
    try:
        rows = [[*row["bleu_counts"], row["rouge_l"], row["cider"]] for row in content["pictures"]]
        statistics = np.array(rows, dtype=np.float64)
        if statistics.shape != (content["images"], 12) or not np.isfinite(statistics).all():
            raise ValueError("wrong size")
        return str(content["tokens"]), content["references_sha256"], statistics
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: damaged: not as `captioner evaluate --json` wrote it") from error


def difference_table(differences: Iterable[Difference]) -> str:
    """The comparison as a Markdown table, in which A is the first evaluation and B the second."""
    rows = []
    for d in differences:
        values = [f"{d.first:.2f}", f"{d.second:.2f}", f"{d.second - d.first:+.2f}", f"{d.low:+.2f} to {d.high:+.2f}"]
        rows.append([METRICS[d.metric], *values, "" if not d.clear else "B is better" if d.low > 0 else "A is better"])
    return markdown_table(["", "A", "B", "B - A", "95 % interval", "beyond chance"], rows)
