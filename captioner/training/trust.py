"""The end of a run: what the captions of a checkpoint are worth, measured on validation pictures.

Fits `network.config.Trust`. What is reported about the fit comes from folds: of captions by functions that were fitted
to other pictures, of unusual pictures by functions that never saw their kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captioner.evaluation.reliability import calibration
from captioner.evaluation.support import TWO_THIRDS, Support
from captioner.inference.decoding import decode
from captioner.inference.rules import Rules
from captioner.inference.torch_engine import PictureEncoder, TorchEngine
from captioner.inference.trust import caption_inputs, logistic
from captioner.network.checkpoint import Checkpoint
from captioner.network.config import Trust
from captioner.options import DecodeOptions
from captioner.pictures.load import ImageSource, load_image
from captioner.pictures.unfamiliar import DAMAGES, KINDS, damage, draw
from captioner.training.captions import CaptionTokens
from captioner.training.words import Columns
from captioner.vocab import tokenise

FEWEST = 200  # validation pictures; of fewer, the numbers would be chance
RIGHT = 0.7  # of what is still written at the default operating point
REFUSED = 0.04  # of ordinary pictures, by the default operating point
FOLDS = 5
_OF_KIND = 12  # unusual pictures of each kind
# A photograph that is upside down or in the colours of a negative still shows what it shows, so these are not learned
# as unfamiliar.
_PHOTOGRAPHS = ("upside-down", "inverted")

_Fit = Callable[[Tensor, Tensor], tuple[float, ...]]


def measure(
    checkpoint: Checkpoint,
    features: Tensor,
    paths: Sequence[ImageSource],
    texts: Sequence[Sequence[str]],
    encoder: PictureEncoder,
) -> tuple[Trust | None, dict[str, Any]]:
    """Fit what a checkpoint's word is worth to the features (P, F) and captions `texts[p]` of validation pictures.

    Returns it, and what to report. With few pictures there is none.
    """
    if len(paths) < FEWEST:
        return None, {"pictures": len(paths)}
    engine = TorchEngine(checkpoint, encoder)
    support, inputs, tags = _captions(engine, features, texts)
    right, shares = (support >= TWO_THIRDS).float(), support.float()
    confidence, cross = fit_logistic(inputs, right), cross_fitted(inputs, right, torch.arange(len(right)) % FOLDS)
    bar = operating_point(cross, right)
    familiar, refuse, by_kind = _familiar(engine, features, paths)
    trust = Trust(confidence, familiar, tags, bar, refuse)
    kept = cross >= bar
    report = {
        "pictures": len(paths),
        "tokens": checkpoint.vocabulary.tokens,
        "right": float(right.mean()),
        "support": float(shares.mean()),
        "error": calibration(cross, right)[0],
        "error_by_chance": error_by_chance(cross),
        "auroc": auroc(cross[right > 0], cross[right == 0]),
        "kept": float(kept.float().mean()),
        "support_kept": float(shares[kept].mean()) if kept.any() else 0.0,
        "support_by_share": {
            f"{share:g}": float(shares[cross.argsort(descending=True)[: int(share * len(cross))]].mean())
            for share in (0.1, 0.25, 0.5, 0.75, 1.0)
        },
        "unfamiliar": by_kind,
        **asdict(trust),
    }
    return trust, report


def _captions(
    engine: TorchEngine, features: Tensor, texts: Sequence[Sequence[str]]
) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """The support of captions (P,), what their confidence depends on (P, 3), and scale and shift of predicted words."""
    vocabulary = engine.about.vocabulary
    references = [[tokenise(text, vocabulary.tokens) for text in those] for those in texts]
    scale = Support(references)
    rules = Rules.of(DecodeOptions(evidence=engine.about.config.evidence), vocabulary)
    support, inputs, found = [], [], []
    for place, part in zip(range(0, len(features), 128), features.split(128), strict=True):
        look = engine.look(part.cpu().numpy())
        best = [hypotheses[0] for hypotheses in decode(engine, look.state, len(part), rules, look.evidence)]
        inputs.append(caption_inputs(best, look.evidence))
        words = [tokenise(vocabulary.text(hypothesis.tokens), vocabulary.tokens) for hypothesis in best]
        pairs = zip(words, references[place : place + len(words)], strict=True)
        support += [scale.share(*pair) for pair in pairs]
        found.append(look.words)
    tags = (1.0, 0.0)
    if engine.about.predicted:
        captions = CaptionTokens.of(texts, vocabulary)
        labels = Columns(torch.tensor(engine.about.predicted), len(vocabulary)).of_pictures(captions, len(texts))
        logits = torch.from_numpy(np.concatenate(found)).logit(1e-6).flatten()
        slope, constant = fit_logistic(logits[:, None], labels.flatten().float())
        tags = (slope, constant)
    return torch.tensor(support, dtype=torch.float64), torch.from_numpy(np.concatenate(inputs)), tags


def _familiar(
    engine: TorchEngine, features: Tensor, paths: Sequence[ImageSource]
) -> tuple[tuple[float, ...], float, dict[str, float]]:
    """The weights of familiarity, the least of it at the operating point, and the AUROC of each kind of picture."""

    def kind_of(features: Tensor) -> Tensor:
        return torch.from_numpy(engine.look(features.cpu().numpy()).kind)

    known = kind_of(features)
    kinds, inputs = [*KINDS, *DAMAGES], []
    for kind in kinds:
        images = [
            draw(kind, number) if kind in KINDS else damage(kind, load_image(paths[number % len(paths)]), number)
            for number in range(_OF_KIND)
        ]
        inputs.append(kind_of(engine.encoder.encode(images)))
    learned = torch.tensor([kind not in _PHOTOGRAPHS for kind in kinds])
    fold = torch.arange(len(kinds)) % FOLDS
    of_picture = torch.arange(len(known)) % FOLDS
    found, ordinary = {}, torch.empty(len(known))
    for number in range(FOLDS):
        weights = _apart(
            known[of_picture != number], [inputs[k] for k in range(len(kinds)) if learned[k] and fold[k] != number]
        )
        ordinary[of_picture == number] = probabilities(weights, known[of_picture == number])
        for place in (fold == number).nonzero().flatten().tolist():
            found[kinds[place]] = auroc(ordinary[of_picture == number], probabilities(weights, inputs[place]))
    weights = _apart(known, [each for each, good in zip(inputs, learned, strict=True) if good])
    return weights, float(ordinary.quantile(REFUSED)), found


def _apart(known: Tensor, others: Sequence[Tensor]) -> tuple[float, ...]:
    """Weights that tell the inputs of known pictures, (P, K), from those of others, both as frequent."""
    other = torch.cat(list(others))
    labels = torch.cat([torch.ones(len(known)), torch.zeros(len(other))])
    weight = torch.where(labels > 0, 1.0, len(known) / len(other))
    return fit_logistic(torch.cat([known, other]), labels, weight)


def fit_logistic(inputs: Tensor, labels: Tensor, weight: Tensor | None = None) -> tuple[float, ...]:
    """Weights of a logistic function of inputs (N, K) for labels (N,) 0 or 1: K slopes, then the constant.

    By Newton's method on standardised inputs, with a small ridge.
    """
    std, mean = torch.std_mean(inputs.double(), dim=0)
    std = std.clamp(min=1e-6)
    x = F.pad((inputs.double() - mean) / std, (0, 1), value=1.0)
    y, w = labels.double(), torch.ones(len(labels)).double() if weight is None else weight.double()
    ridge = torch.eye(x.shape[1], dtype=torch.float64)
    ridge[-1, -1] = 1e-3
    beta = torch.zeros(x.shape[1], dtype=torch.float64)
    for _ in range(30):
        p = torch.sigmoid(x @ beta)
        gradient = x.T @ (w * (p - y)) + ridge @ beta
        hessian = (x.T * (w * p * (1 - p))) @ x + ridge
        step = torch.linalg.solve(hessian, gradient)
        beta -= step * min(1.0, 5.0 / float(step.norm().clamp(min=1e-9)))
    slopes = beta[:-1] / std
    return (*slopes.tolist(), float(beta[-1] - (slopes * mean).sum()))


def probabilities(weights: Sequence[float], inputs: Tensor) -> Tensor:
    """`logistic` of tensors."""
    return torch.from_numpy(logistic(weights, inputs.numpy()))


def cross_fitted(inputs: Tensor, labels: Tensor, fold: Tensor) -> Tensor:
    """Probabilities (N,), each by a function that was fitted to the other folds."""
    found = torch.empty(len(labels))
    for number in fold.unique():
        mine = fold == number
        found[mine] = probabilities(fit_logistic(inputs[~mine], labels[~mine]), inputs[mine])
    return found


def operating_point(confidence: Tensor, right: Tensor) -> float:
    """The least confidence from which so many captions are right as RIGHT says; 1 if there is none."""
    order = confidence.argsort(descending=True)
    share = right[order].cumsum(0) / torch.arange(1, len(order) + 1)
    enough = (share >= RIGHT).nonzero().flatten()
    return float(confidence[order[enough[-1]]]) if len(enough) else 1.0


def error_by_chance(probability: Tensor) -> float:
    """The mean calibration error of probabilities that are exactly right, on so many captions, in percent points."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(50, len(probability), generator=generator) < probability
    return sum(calibration(probability, draw)[0] for draw in draws) / len(draws)


def auroc(higher: Tensor, lower: Tensor) -> float:
    """The probability that one of `higher` is above one of `lower`; ties count half."""
    if not len(higher) or not len(lower):
        return 0.5
    above = (higher[:, None] > lower).float().mean() + 0.5 * (higher[:, None] == lower).float().mean()
    return float(above)
