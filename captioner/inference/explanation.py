"""Inside a caption: the candidates at each step, the beam's hypotheses, hidden states, and heat maps.

Pictures come in as uint8 tensors, captions as token ids; the vocabulary is only used to name tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.inference.decoding import Hypothesis
from captioner.network.model import Decoder
from captioner.vocab import END, START

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
    logprob: float  # of all words so far, natural logarithm
    score: float | None  # by which finished hypotheses are ranked; None for one that continues


@dataclass(frozen=True)
class Choices:
    """What a decoder computes for one picture and one caption of T tokens, with teacher forcing."""

    logprobs: Tensor  # (T, V), of all tokens in each place
    hidden: Tensor  # (T, H), states of the last layer, before each token


@torch.inference_mode()
def choices(decoder: Decoder, feature: Tensor, tokens: Sequence[int]) -> Choices:
    """Let the decoder read the tokens of a caption, for one feature (1, F)."""
    inputs = torch.tensor([[START, *tokens[:-1]]], device=feature.device)
    hidden, _ = decoder.read(inputs, decoder.init_state(feature))
    return Choices(decoder.logits(hidden)[0].float().log_softmax(-1), hidden[0])


@torch.inference_mode()
def heat_maps(
    encode_pixels: Callable[[Tensor], Tensor], decoder: Decoder, pixels: Tensor, tokens: Sequence[int]
) -> Tensor:
    """How far the log-probability of each token falls when a part of the picture is hidden: (T, GRID, GRID).

    Occlusion, as in Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks": a grey square
    moves over the picture, (3, S, S) uint8, and its effect on every word is measured. This works with any encoder.
    Gradients on the last feature map showed much less clearly where the thing is that a word names.
    """
    features = encode_pixels(torch.cat([pixels[None], _occluded(pixels)]))
    inputs = torch.tensor([[START, *tokens[:-1]]], device=features.device).expand(len(features), -1)
    logprobs = decoder(features, inputs).float().log_softmax(-1)
    chosen = logprobs[:, torch.arange(len(tokens)), list(tokens)]  # (1 + GRID^2, T)
    maps: Tensor = (chosen[0] - chosen[1:]).T.reshape(len(tokens), GRID, GRID)
    return maps


def _occluded(pixels: Tensor) -> Tensor:
    """(3, S, S) -> (GRID^2, 3, S, S): in each, another part is painted in the picture's mean colour, row by row."""
    mean = pixels.float().mean((1, 2), keepdim=True).round().to(pixels.dtype)
    cell = pixels.shape[-1] / GRID
    pictures = pixels.repeat(GRID * GRID, 1, 1, 1)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, GRID)
        top, left = round((row - 0.5) * cell), round((column - 0.5) * cell)
        bottom, right = round((row + 1.5) * cell), round((column + 1.5) * cell)
        picture[:, max(0, top) : bottom, max(0, left) : right] = mean
    return pictures


def steps_of(words: Sequence[str], caption: Hypothesis, read: Choices, heat: Tensor) -> tuple[Step, ...]:
    """The steps of a caption, from what `choices` and `heat_maps` found for it; `words[id]` names a token."""
    top = read.logprobs.exp().topk(min(CANDIDATES, len(words)))
    tops = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple(
        Step(
            word=words[token],
            probability=math.exp(logprob),
            candidates=tuple(Candidate(words[other], found) for other, found in zip(*others, strict=True)),
            hidden=hidden.float().cpu(),
            heat=heat_map.cpu(),
        )
        for token, logprob, others, hidden, heat_map in zip(
            caption.tokens, caption.token_logprobs, tops, read.hidden, heat, strict=True
        )
    )


class BeamRecorder:
    """Watches the beam of one picture (see `decoding.BeamWatcher`) and keeps the hypotheses of each step."""

    def __init__(self, words: Sequence[str], length_penalty: float) -> None:
        self.steps: list[tuple[Branch, ...]] = []
        self._words, self._length_penalty = words, length_penalty
        self._places: dict[int, int] = {}  # place in the beam -> place among the branches of the last step

    def __call__(self, parent: Tensor, token: Tensor, logprob: Tensor) -> None:
        """Keep the hypotheses of one step, (1, K) each."""
        branches: list[Branch] = []
        places: dict[int, int] = {}
        for place, (source, word, total) in enumerate(
            zip(parent[0].tolist(), token[0].tolist(), logprob[0].tolist(), strict=True)
        ):
            if total == -float("inf"):  # fewer hypotheses than places
                continue
            score = total / (len(self.steps) + 1) ** self._length_penalty if word == END else None
            places[place] = len(branches)
            branches.append(Branch(self._words[word], self._places[source] if self.steps else None, total, score))
        self.steps.append(tuple(branches))
        self._places = places
