"""Inside a caption: the candidates at each step, the beam's hypotheses, hidden states, and heat maps.

Shapes: T tokens of a caption, V vocabulary, F feature, H hidden, S image side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captioner.inference.decoding import decode
from captioner.inference.results import Caption
from captioner.inference.rules import Floats, Ids, Rules
from captioner.network.model import Decoder
from captioner.vocab import END, START, Vocabulary

if TYPE_CHECKING:  # it imports this module
    from captioner.inference.torch_engine import TorchEngine

GRID = 7  # heat maps are GRID x GRID cells; the parts that are hidden are two cells wide
CANDIDATES = 10  # shown at each step


@dataclass(frozen=True)
class Candidate:
    """A word that could have come next."""

    word: str
    probability: float


@dataclass(frozen=True)
class Step:
    """One word of a caption, or its end, and what could have come in its place."""

    word: str
    probability: float
    candidates: tuple[Candidate, ...]  # the most likely words, the most likely first
    hidden: Tensor  # (H,) float32: the last layer's hidden state from which the word was chosen
    heat: Tensor  # (GRID, GRID) float32: how far the word's log-probability falls when that part is hidden


@dataclass(frozen=True)
class Branch:
    """A hypothesis of a beam at one step: a word added to one of the hypotheses of the step before."""

    word: str
    parent: int | None  # the place of that one among the branches of its step; None at the first step
    logprob: float  # of all words so far, natural logarithm, with the evidence for them
    score: float | None  # by which finished hypotheses are ranked; None for one that continues


@dataclass(frozen=True)
class Explanation:
    """What is inside a caption."""

    caption: Caption
    steps: tuple[Step, ...]  # one per word, and one for the end where the model ended the sentence itself
    beam: tuple[tuple[Branch, ...], ...]  # the hypotheses at each step, best first; empty without a beam
    start: Tensor  # (H,) float32: h_0 of the last layer, which the picture sets
    words: tuple[Candidate, ...]  # that the word predictor finds in the picture, the most likely first


@torch.inference_mode()
def explain(encode: Callable[[Tensor], Tensor], engine: TorchEngine, pixels: Tensor, rules: Rules) -> Explanation:
    """Caption a picture, (3, S, S) uint8, and tell how the caption came about. `encode` makes features of pictures."""
    feature, decoder, vocabulary = encode(pixels[None]), engine.decoder, engine.about.vocabulary
    words, look = vocabulary.words, engine.look(feature.float().cpu().numpy())
    recorder = BeamRecorder(words, rules.options.length_penalty)
    [[best, *_]] = decode(engine, look.state, 1, rules, look.evidence, recorder)
    logprobs, hidden = teacher_forced(decoder, feature, best.tokens)
    heat = heat_maps(encode, decoder, pixels, best.tokens)
    top = logprobs.exp().topk(min(CANDIDATES, len(words)))
    steps = []
    for t, (token, logprob) in enumerate(zip(best.tokens, best.token_logprobs, strict=True)):
        likely = zip(top.indices[t].tolist(), top.values[t].tolist(), strict=True)
        candidates = tuple(Candidate(words[other], probability) for other, probability in likely)
        steps.append(Step(words[token], math.exp(logprob), candidates, hidden[t].float().cpu(), heat[t].cpu()))
    start = decoder.init_state(feature)[0][-1, 0].float().cpu()
    found = predicted_words(decoder, feature, vocabulary)
    return Explanation(Caption.of(best, vocabulary), tuple(steps), tuple(recorder.steps), start, found)


@torch.inference_mode()
def predicted_words(decoder: Decoder, feature: Tensor, vocabulary: Vocabulary) -> tuple[Candidate, ...]:
    """The likeliest words of a feature (1, F), each once, although it may be learned and a name as well."""
    predictor, found = decoder.words, dict[str, float]()
    tokens = predictor.tokens.tolist() if predictor.size else []
    for token, probability in zip(tokens, predictor(feature)[0].tolist(), strict=True):
        word = vocabulary.words[token]
        found[word] = max(probability, found.get(word, 0.0))
    ranked = sorted(found.items(), key=lambda item: -item[1])[:CANDIDATES]
    return tuple(Candidate(word, probability) for word, probability in ranked)


@torch.inference_mode()
def teacher_forced(decoder: Decoder, feature: Tensor, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Let the decoder read a caption of the picture with the feature (1, F).

    Returns the log-probabilities of all tokens in each place (T, V), and the last layer's hidden states (T, H) that
    they come from.
    """
    inputs = torch.tensor([[START, *tokens[:-1]]], device=feature.device)
    hidden, _ = decoder.read(inputs, decoder.init_state(feature))
    return decoder.logits(hidden)[0].float().log_softmax(-1), hidden[0]


@torch.inference_mode()
def heat_maps(encode: Callable[[Tensor], Tensor], decoder: Decoder, pixels: Tensor, tokens: Sequence[int]) -> Tensor:
    """How far the log-probability of each token falls when a part of the picture is hidden: (T, GRID, GRID).

    Occlusion, as in Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks": a grey square
    moves over the picture, (3, S, S) uint8, and its effect on every word is measured. This works with any encoder.
    Gradients on the last feature map showed much less clearly where the thing is that a word names.
    """
    features = encode(torch.cat([pixels[None], _occluded(pixels)]))
    inputs = torch.tensor([[START, *tokens[:-1]]], device=features.device).expand(len(features), -1)
    logprobs: Tensor = decoder(features, inputs).float().log_softmax(-1)
    chosen = logprobs[:, torch.arange(len(tokens)), list(tokens)]  # (1 + GRID^2, T)
    return (chosen[0] - chosen[1:]).T.reshape(len(tokens), GRID, GRID)


def _occluded(pixels: Tensor) -> Tensor:
    """(3, S, S) -> (GRID^2, 3, S, S): in each, another part is painted in the picture's mean colour, row by row."""
    mean = pixels.float().mean((1, 2), keepdim=True).round().to(pixels.dtype)
    cell = pixels.shape[-1] / GRID
    pictures = pixels.repeat(GRID * GRID, 1, 1, 1)
    for place, picture in enumerate(pictures):
        rows, columns = (slice(max(0, round((i - 0.5) * cell)), round((i + 1.5) * cell)) for i in divmod(place, GRID))
        picture[:, rows, columns] = mean
    return pictures


class BeamRecorder:
    """Watches the beam of one picture (see `decoding.BeamWatcher`) and keeps the hypotheses of each step."""

    def __init__(self, words: Sequence[str], length_penalty: float) -> None:
        self.steps: list[tuple[Branch, ...]] = []
        self._words, self._length_penalty = words, length_penalty

    def __call__(self, parent: Ids, token: Ids, logprob: Floats) -> None:
        """Keep the hypotheses of one step, (1, K) each."""
        divisor, branches = (len(self.steps) + 1) ** self._length_penalty, []
        for place, word, total in zip(parent[0].tolist(), token[0].tolist(), logprob[0].tolist(), strict=True):
            if total > -math.inf:  # there may be fewer hypotheses than places, which are the last ones then
                score = total / divisor if word == END else None
                branches.append(Branch(self._words[word], place if self.steps else None, total, score))
        self.steps.append(tuple(branches))
