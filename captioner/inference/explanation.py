"""Inside a caption: the words that were weighed at each step, the beam's hypotheses, hidden states, and heat maps.

Pure torch: sees pictures as uint8 tensors, token ids and logits, no text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.network.model import Decoder
from captioner.vocab import END, START

GRID = 7  # heat maps are GRID x GRID; a part that is hidden is two cells wide
CANDIDATES = 10


@dataclass(frozen=True)
class Candidate:
    """A word that could have come next, with its probability."""

    word: str
    probability: float


@dataclass(frozen=True)
class Step:
    """One word of a caption, or its end, and what could have stood there."""

    word: str
    probability: float
    candidates: tuple[Candidate, ...]  # the likeliest words, the likeliest first
    hidden: Tensor  # (H,) float32: the last layer's hidden state from which the word was chosen
    heat: Tensor  # (GRID, GRID) float32: how far the word's log-probability falls when this part is hidden


@dataclass(frozen=True)
class Branch:
    """A hypothesis of a beam at one step: a word after one of the hypotheses of the step before."""

    word: str
    parent: int | None  # its place among the branches of the step before; None at the first step
    logprob: float  # of all words so far, natural logarithm
    score: float | None  # what ranks the finished ones; None where it goes on


@dataclass(frozen=True)
class Choices:
    """What a decoder makes of one picture and one caption of T tokens, read with teacher forcing."""

    logprobs: Tensor  # (T, V), of each token after those before it
    hidden: Tensor  # (T, H), of the last layer, before each token


@torch.inference_mode()
def choices(decoder: Decoder, feature: Tensor, tokens: Sequence[int]) -> Choices:
    """Read the tokens of a caption for one feature, (1, F)."""
    inputs = torch.tensor([[START, *tokens[:-1]]], device=feature.device)
    hidden, _ = decoder.read(inputs, decoder.init_state(feature))
    return Choices(decoder.logits(hidden)[0].float().log_softmax(-1), hidden[0])


@torch.inference_mode()
def heat_maps(
    encode_pixels: Callable[[Tensor], Tensor], decoder: Decoder, pixels: Tensor, tokens: Sequence[int]
) -> Tensor:
    """How far the log-probability of each token falls when a part of the picture is hidden: (T, GRID, GRID).

    Occlusion, as in Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks": a grey square
    moves over the picture (3, S, S), uint8, and what it does to a word is measured. It asks nothing of the encoder;
    gradients on the last feature map, the other way, showed much less clearly where the thing was that a word names.
    """
    features = encode_pixels(torch.cat([pixels[None], _occluded(pixels)]))
    inputs = torch.tensor([[START, *tokens[:-1]]], device=features.device).expand(len(features), -1)
    logprobs = decoder(features, inputs).float().log_softmax(-1)
    chosen = logprobs[:, torch.arange(len(tokens)), list(tokens)]  # (1 + GRID^2, T)
    maps: Tensor = (chosen[0] - chosen[1:]).T.reshape(len(tokens), GRID, GRID)
    return maps


def _occluded(pixels: Tensor) -> Tensor:
    """(3, S, S) -> (GRID^2, 3, S, S): one part after the other in the picture's mean colour, row by row."""
    mean = pixels.float().mean((1, 2), keepdim=True).round().to(pixels.dtype)
    cell = pixels.shape[-1] / GRID
    pictures = pixels.repeat(GRID * GRID, 1, 1, 1)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, GRID)
        top, left = round((row - 0.5) * cell), round((column - 0.5) * cell)
        bottom, right = round((row + 1.5) * cell), round((column + 1.5) * cell)
        picture[:, max(0, top) : bottom, max(0, left) : right] = mean
    return pictures


class BeamRecorder:
    """Watches a beam of one picture (see `decoding.BeamWatcher`) and keeps what it went on with."""

    def __init__(self, words: Sequence[str], length_penalty: float) -> None:
        self.steps: list[tuple[Branch, ...]] = []
        self._words, self._length_penalty = words, length_penalty
        self._places: dict[int, int] = {}  # place in the beam -> place among the branches of the last step

    def __call__(self, parent: Tensor, token: Tensor, logprob: Tensor) -> None:
        """Keep what one step chose, (1, K) each."""
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
