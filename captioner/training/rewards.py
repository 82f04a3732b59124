"""CIDEr-D as a reward for sampled captions: self-critical training (Rennie et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from captioner.decoding import ban, choose
from captioner.metrics import Cider, DocumentFrequencies
from captioner.model import Decoder
from captioner.options import DecodeOptions
from captioner.vocab import END, PAD, SPECIAL_TOKENS, START, Vocabulary


class Rewards:
    """CIDEr-D of captions against the training captions, with their own document frequencies.

    `<end>` counts as a word: without it, a caption that breaks off ("a dog with a") costs nothing, and self-critical
    training learns to break off.
    """

    def __init__(self, texts: Iterable[Sequence[str]], vocabulary: Vocabulary) -> None:
        end = SPECIAL_TOKENS[END]
        references = [[[*vocabulary.tokenise(text), end] for text in those] for those in texts]
        self._cider = Cider(references, DocumentFrequencies.of(references))
        self._words = vocabulary.words

    def of(self, pictures: Sequence[int], tokens: Tensor) -> Tensor:
        """Rewards (B,) of captions (B, T) as `sample_captions` gives them, for pictures by number; 1 is 100 CIDEr-D."""
        captions = ([self._words[token] for token in row if token not in (PAD, START)] for row in tokens.tolist())
        scores = [self._cider.score(picture, words) for picture, words in zip(pictures, captions, strict=True)]
        return torch.tensor(scores) / 100.0


@torch.no_grad()
def sample_captions(decoder: Decoder, features: Tensor, max_length: int) -> Tensor:
    """A caption drawn for each feature of (B, F), with torch's global randomness: (B, T) int64.

    Begins with `<start>`, ends with `<end>` unless the length limit comes first, then padding.
    """
    options = DecodeOptions("sample", max_length=max_length)
    state = decoder.init_state(features)
    written = torch.full((len(features), 1), START, device=features.device)
    for _ in range(max_length):
        done = (written[:, -1] == END) | (written[:, -1] == PAD)
        if done.all():
            break
        logits, state = decoder.step(written[:, -1], state)
        uniform = torch.rand(len(features), dtype=torch.float64).to(features.device)
        token = choose(ban(logits.float().log_softmax(-1), written[:, 1:], options), options, uniform)
        written = torch.cat([written, torch.where(done, PAD, token).unsqueeze(1)], 1)
    return written


def self_critical_loss(decoder: Decoder, features: Tensor, tokens: Tensor, advantages: Tensor) -> Tensor:
    """-sum over tokens of advantage * log-probability, over the number of tokens, ().

    Features (B, F), sampled captions (B, T), advantages (B,): rewards less those of the picture's other samples.
    """
    logprobs = decoder(features, tokens[:, :-1]).float().log_softmax(-1)
    targets = tokens[:, 1:]
    chosen = logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    real = targets != PAD
    loss: Tensor = -(advantages.unsqueeze(1) * chosen * real).sum() / real.sum()
    return loss


def advantages(rewards: Tensor) -> Tensor:
    """Of N samples a picture, (P, N): each reward less the mean of the picture's others (Luo 2020, "A better variant
    of self-critical sequence training").
    """
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others
