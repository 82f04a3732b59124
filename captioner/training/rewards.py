"""Self-critical training (Rennie et al. 2017): sampled captions, and CIDEr-D as their reward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from captioner.evaluation.metrics import Cider, DocumentFrequencies
from captioner.inference.rules import Rules
from captioner.network.model import Decoder
from captioner.training.losses import groups_by_length, real_targets
from captioner.vocab import END, PAD, SPECIAL_TOKENS, START, Vocabulary


class Rewards:
    """CIDEr-D of captions against the training captions, with their own document frequencies.

    `<end>` counts as a word. Otherwise a caption that breaks off ("a dog with a") would lose nothing, and the decoder
    would learn to break off.
    """

    def __init__(self, texts: Sequence[Sequence[str]], vocabulary: Vocabulary, counted: int | None = None) -> None:
        """`texts[p]` are the captions of picture p. Frequencies are counted in those of the first `counted` pictures,
        or in all of them, which takes a while.
        """

        def references(picture: int) -> list[list[str]]:
            # They are split when they are asked for: as words, they would take gigabytes.
            return [[*vocabulary.tokenise(text), SPECIAL_TOKENS[END]] for text in texts[picture]]

        frequencies = DocumentFrequencies.of(map(references, range(len(texts))[:counted]))
        self._cider = Cider(references, frequencies)
        self._words = vocabulary.words

    def of(self, pictures: Sequence[int], tokens: Tensor) -> Tensor:
        """Rewards (B,) of captions (B, T) from `sample_captions`, for pictures by number; 1 means 100 CIDEr-D."""
        captions = ([self._words[token] for token in row if token not in (PAD, START)] for row in tokens.tolist())
        scores = [self._cider.score(picture, words) for picture, words in zip(pictures, captions, strict=True)]
        return torch.tensor(scores) / 100.0


@torch.no_grad()
def sample_captions(decoder: Decoder, features: Tensor, rules: Rules, **known: Tensor) -> Tensor:
    """A caption drawn for each feature of (B, F) by the rules, with torch's global randomness: (B, T) int64.

    `known` is what else `Decoder.init_state` takes, (B, ...) each.

    Begins with `<start>`, ends with `<end>` unless the length limit comes first, then padding.
    """
    max_length = rules.options.max_length
    state = decoder.init_state(features, **known)
    written = torch.full((len(features), max_length + 1), PAD, device=features.device)
    written[:, 0] = START
    rows = torch.arange(len(features), device=features.device)  # that have not ended
    for length in range(1, max_length + 1):
        logits, state = decoder.step(written[rows, length - 1], state)
        logprobs, before = logits.float().log_softmax(-1).cpu().numpy(), written[rows, 1:length].cpu().numpy()
        chosen = rules.next_token(rules.scores(logprobs, before), torch.rand(len(rows), dtype=torch.float64).numpy())
        written[rows, length] = token = torch.from_numpy(chosen).to(features.device)
        going_on = token != END
        rows, state = rows[going_on], tuple(part[:, going_on] for part in state)
        if not len(rows):
            break
    return written[:, : length + 1]


def self_critical_loss(
    decoder: Decoder, features: Tensor, tokens: Tensor, advantages: Tensor, **known: Tensor
) -> Tensor:
    """The sum over all tokens of -advantage * log-probability, divided by the number of tokens, ().

    `features` (B, F), sampled captions `tokens` (B, T), their `advantages` (B,), and what else `Decoder.init_state`
    takes, (B, ...) each.
    """
    total = features.new_zeros(())
    for group, part in groups_by_length(tokens):
        of_group = {name: values[group] for name, values in known.items()}
        logits, targets = decoder(features[group], part[:, :-1], **of_group).flatten(0, 1).float(), part[:, 1:]
        losses = F.cross_entropy(logits, targets.flatten(), ignore_index=PAD, reduction="none").view_as(targets)
        total = total + (advantages[group, None] * losses).sum()
    return total / real_targets(tokens)


def advantages(rewards: Tensor) -> Tensor:
    """Rewards of N samples of each picture, (P, N), minus the mean reward of the picture's other samples (Luo 2020,
    "A better variant of self-critical sequence training").
    """
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others
