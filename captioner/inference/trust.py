"""What a caption is worth: two calibrated numbers, and words for pictures that get no sentence.

- `confidence` is the probability that the caption is right, as `evaluation.support` defines it: a logistic function of
  the mean log-probability of its words, of their number, and of the mean evidence for them in the picture. It was
  learned on ordinary pictures, so it falls in proportion where the picture is less familiar than nearly all of these.
- `familiar` is the probability that the picture is of the kind that the model learned from: a logistic function of the
  lengths of the standardised feature and of its negative part, and of its mean. Features of unusual pictures differ in
  length (Hendrycks and Gimpel 2017, "A baseline for detecting misclassified and out-of-distribution examples", and many
  since); what an ordinary photograph has, and this picture lacks, makes the negative part long.

`training/trust.py` fits both. Shapes: N captions, B pictures, F feature, V vocabulary, W predicted words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from captioner.errors import OptionError
from captioner.inference.decoding import Hypothesis
from captioner.inference.engine import Look
from captioner.inference.results import Caption, Tag
from captioner.inference.rules import Floats
from captioner.languages import language_of
from captioner.network.config import Trust
from captioner.options import DecodeOptions
from captioner.vocab import END, Vocabulary

NOT_SURE, UNFAMILIAR = "not sure", "not a kind of picture that the model knows"
LIKELY = 0.5  # probability from which a word is a tag


def caption_inputs(hypotheses: Sequence[Hypothesis], evidence: Floats | None) -> Floats:
    """What the confidence of N captions depends on, (N, 3); `evidence` (N, V) is that of the picture of each."""
    rows = []
    for place, hypothesis in enumerate(hypotheses):
        words = [token for token in hypothesis.tokens if token != END]
        number = max(1, len(words))
        found = float(evidence[place, words].sum()) if evidence is not None else 0.0
        rows.append([sum(hypothesis.token_logprobs[: len(words)]) / number, float(len(words)), found / number])
    return np.array(rows, dtype=np.float32).reshape(-1, 3)


def feature_inputs(standardised: Floats) -> Floats:
    """What the familiarity of pictures depends on, (B, 3), from their standardised features (B, F)."""
    scale = standardised.shape[1] ** 0.5
    negative = np.minimum(standardised, 0)
    lengths = (np.linalg.norm(values, axis=1) / scale for values in (standardised, negative))
    return np.stack([*lengths, standardised.mean(1)], 1)


def logistic(weights: Sequence[float], inputs: Floats) -> Floats:
    """Probabilities (N,) from inputs (N, K) and K weights with the constant at their end."""
    *slopes, constant = weights
    return _sigmoid(inputs @ np.array(slopes, dtype=inputs.dtype) + constant)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))  # which neither overflows nor rounds small ones to 0


class Judge:
    """Gives captions their confidence, familiarity and tags, and leaves out what is not sure, as the options say."""

    def __init__(self, vocabulary: Vocabulary, trust: Trust | None, predicted: Sequence[int]) -> None:
        """`predicted` (W,) are the tokens of the words that the model finds in a picture."""
        self._vocabulary, self._trust, self._predicted = vocabulary, trust, predicted
        self._language = language_of(vocabulary.words)

    def check(self, options: DecodeOptions) -> None:
        """Raise OptionError for options that this checkpoint cannot obey."""
        if options.unsure != "write" and not self._trust:
            raise OptionError(
                f"unsure {options.unsure} needs a checkpoint that knows how sure it is: train it with more validation "
                "pictures, or leave unsure (--unsure) out"
            )
        if options.tags and not len(self._predicted):
            raise OptionError("tags need a checkpoint with a word predictor: leave tags (--tags) out")

    def judged(self, several: Sequence[Sequence[Hypothesis]], look: Look, options: DecodeOptions) -> list[Caption]:
        """The captions of B pictures, each with its alternatives."""
        flat = [hypothesis for those in several for hypothesis in those]
        owner = [place for place, those in enumerate(several) for _ in those]
        captions = [Caption.of(hypothesis, self._vocabulary) for hypothesis in flat]
        if self._trust:
            inputs = caption_inputs(flat, look.evidence[owner] if look.evidence is not None else None)
            familiar = logistic(self._trust.familiar, look.kind)[owner]
            confidence = logistic(self._trust.confidence, inputs)
            confidence = confidence * np.minimum(familiar / max(self._trust.min_familiar, 1e-6), 1.0)
            numbers = zip(captions, confidence.tolist(), familiar.tolist(), strict=True)
            captions = [self._said(replace(c, confidence=sure, familiar=f), options) for c, sure, f in numbers]
        tags = self._tags(look, options.tags) if options.tags else [()] * len(several)
        left, result = iter(captions), []
        for those, words in zip(several, tags, strict=True):
            best, *others = (next(left) for _ in those)
            result.append(replace(best, alternatives=tuple(others), tags=words))
        return result

    def _said(self, caption: Caption, options: DecodeOptions) -> Caption:
        """The caption with what speaks against it, if anything does; then as it is, marked or without its text."""
        trust = self._trust
        if trust is None or caption.confidence is None or caption.familiar is None:
            return caption
        least = trust.min_confidence if options.min_confidence is None else options.min_confidence
        known = trust.min_familiar if options.min_familiar is None else options.min_familiar
        if caption.familiar < known:
            reason = UNFAMILIAR
        elif caption.confidence < least:
            reason = NOT_SURE
        else:
            return caption
        texts = {"write": caption.text, "mark": self._language.may_show + caption.text, "skip": ""}
        return replace(caption, text=texts[options.unsure], unsure=reason)

    def _tags(self, look: Look, most: int) -> list[tuple[Tag, ...]]:
        """At most so many words for each picture that people probably use of it, without function words."""
        scale, shift = self._trust.words if self._trust else (1.0, 0.0)
        share = look.words.clip(1e-6, 1 - 1e-6)
        likely = _sigmoid(scale * np.log(share / (1.0 - share)) + shift)
        words = [self._vocabulary.words[token] for token in self._predicted]
        found = []
        for row in likely:
            best: dict[str, float] = {}
            for place in (row >= LIKELY).nonzero()[0].tolist():
                if words[place] not in self._language.function_words:
                    best[words[place]] = max(float(row[place]), best.get(words[place], 0.0))
            ranked = sorted(best.items(), key=lambda item: -item[1])[:most]
            found.append(tuple(Tag(self._vocabulary.spellings.get(word, word), share) for word, share in ranked))
        return found
