"""What a caption is worth: two calibrated numbers, and words for pictures that get no sentence.

- `confidence` is the probability that the caption is right, as `evaluation.support` defines it: a logistic function of
  the mean log-probability of its words, of their number, and of the mean evidence for them in the picture. It was
  learned on ordinary pictures, so it falls in proportion where the picture is less familiar than nearly all of these.
- `familiar` is the probability that the picture is of the kind that the model learned from: a logistic function of the
  lengths of the standardised feature and of its negative part, and of its mean. Features of unusual pictures differ in
  length (Hendrycks and Gimpel 2017, "A baseline for detecting misclassified and out-of-distribution examples", and many
  since); what an ordinary photograph has, and this picture lacks, makes the negative part long.

`training/trust.py` fits both. Shapes: N captions, B pictures, F feature, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from captioner.errors import OptionError
from captioner.inference.decoding import Hypothesis
from captioner.inference.results import Caption, Tag
from captioner.languages import language_of
from captioner.network.config import Trust
from captioner.network.model import Decoder
from captioner.options import DecodeOptions
from captioner.vocab import END, Vocabulary

NOT_SURE, UNFAMILIAR = "not sure", "not a kind of picture that the model knows"
LIKELY = 0.5  # probability from which a word is a tag


def caption_inputs(hypotheses: Sequence[Hypothesis], evidence: Tensor | None) -> Tensor:
    """What the confidence of N captions depends on, (N, 3); `evidence` (N, V) is that of the picture of each."""
    rows = []
    for place, hypothesis in enumerate(hypotheses):
        words = [token for token in hypothesis.tokens if token != END]
        number = max(1, len(words))
        found = float(evidence[place, words].sum()) if evidence is not None else 0.0
        rows.append([sum(hypothesis.token_logprobs[: len(words)]) / number, float(len(words)), found / number])
    return torch.tensor(rows).view(-1, 3)


def feature_inputs(decoder: Decoder, features: Tensor) -> Tensor:
    """What the familiarity of pictures depends on, (B, 3), from their features (B, F)."""
    standard = decoder.standardised(features).float()
    scale = standard.shape[1] ** 0.5
    return torch.stack([standard.norm(dim=1) / scale, standard.clamp(max=0).norm(dim=1) / scale, standard.mean(1)], 1)


def logistic(weights: Sequence[float], inputs: Tensor) -> Tensor:
    """Probabilities (N,) from inputs (N, K) and K weights with the constant at their end."""
    *slopes, constant = weights
    return torch.sigmoid(inputs.cpu() @ torch.tensor(slopes) + constant)


class Judge:
    """Gives captions their confidence, familiarity and tags, and leaves out what is not sure, as the options say."""

    def __init__(self, decoder: Decoder, vocabulary: Vocabulary, trust: Trust | None) -> None:
        self._decoder, self._vocabulary, self._trust = decoder, vocabulary, trust
        self._language = language_of(vocabulary.words)

    def check(self, options: DecodeOptions) -> None:
        """Raise OptionError for options that this checkpoint cannot obey."""
        if options.unsure != "write" and not self._trust:
            raise OptionError(
                f"unsure {options.unsure} needs a checkpoint that knows how sure it is: train it with more validation "
                "pictures, or leave unsure (--unsure) out"
            )
        if options.tags and not self._decoder.words.size:
            raise OptionError("tags need a checkpoint with a word predictor: leave tags (--tags) out")

    def judged(
        self, several: Sequence[Sequence[Hypothesis]], features: Tensor, evidence: Tensor | None, options: DecodeOptions
    ) -> list[Caption]:
        """The captions of B pictures, each with its alternatives. `features` (B, F), `evidence` (B, V)."""
        flat = [hypothesis for those in several for hypothesis in those]
        owner = torch.tensor([place for place, those in enumerate(several) for _ in those], device=features.device)
        captions = [Caption.of(hypothesis, self._vocabulary) for hypothesis in flat]
        if self._trust:
            confidence = logistic(
                self._trust.confidence, caption_inputs(flat, evidence[owner] if evidence is not None else None)
            )
            familiar = logistic(self._trust.familiar, feature_inputs(self._decoder, features))[owner.cpu()]
            confidence = confidence * (familiar / max(self._trust.min_familiar, 1e-6)).clamp(max=1.0)
            numbers = zip(captions, confidence.tolist(), familiar.tolist(), strict=True)
            captions = [self._said(replace(c, confidence=sure, familiar=f), options) for c, sure, f in numbers]
        tags = self.tags(features, options.tags) if options.tags else [()] * len(several)
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

    def tags(self, features: Tensor, most: int) -> list[tuple[Tag, ...]]:
        """At most so many words for each picture that people probably use of it, without function words."""
        scale, shift = self._trust.words if self._trust else (1.0, 0.0)
        predictor = self._decoder.words
        likely = torch.sigmoid(scale * predictor(features).float().logit(1e-6) + shift).cpu()
        words = [self._vocabulary.words[token] for token in predictor.tokens.tolist()]
        found = []
        for row in likely:
            best: dict[str, float] = {}
            for place in (row >= LIKELY).nonzero().flatten().tolist():
                if words[place] not in self._language.function_words:
                    best[words[place]] = max(float(row[place]), best.get(words[place], 0.0))
            ranked = sorted(best.items(), key=lambda item: -item[1])[:most]
            found.append(tuple(Tag(self._vocabulary.spellings.get(word, word), share) for word, share in ranked))
        return found
