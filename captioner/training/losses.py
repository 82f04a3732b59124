"""The loss of training: the cross-entropy of captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from captioner.network.kernels import summed_cross_entropy
from captioner.network.model import Decoder
from captioner.vocab import PAD

GROUP_SIZE = 64  # captions that go through the decoder at once


@dataclass(frozen=True)
class Losses:
    """The loss that a step minimises, and two values for the log: scalars, which add up over the ranks."""

    total: Tensor
    captions: Tensor  # cross-entropy per token
    reward: Tensor | float = 0.0  # mean reward


def caption_loss(
    decoder: Decoder, features: Tensor, tokens: Tensor, label_smoothing: float = 0.0, **known: Tensor
) -> Tensor:
    """Teacher-forced cross-entropy of captions (B, T) given features (B, F): the sum over all real tokens, ().

    `known` is what else `Decoder.init_state` takes, (B, ...) each.
    """
    logits = decoder(features, tokens[:, :-1], **known)  # (B, T - 1, V)
    return summed_cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), label_smoothing)


def real_targets(tokens: Tensor) -> int:
    """How many tokens of (B, T) are to be predicted: all but `<start>` and padding."""
    return int((tokens[:, 1:] != PAD).sum())


def grouped_caption_loss(
    decoder: Decoder, features: Tensor, tokens: Tensor, owner: Tensor, smoothing: float, **known: Tensor
) -> Tensor:
    """`caption_loss` of captions (B, T), in `groups_by_length`, where caption b belongs to `features[owner[b]]` and to
    the same row of each in `known`.
    """
    total = features.new_zeros(())
    for group, part in groups_by_length(tokens):
        rows = owner[group].to(features.device)
        of_group = {name: values[rows] for name, values in known.items()}
        total = total + caption_loss(decoder, features[rows], part.to(features.device), smoothing, **of_group)
    return total


def groups_by_length(tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Captions (B, T) in groups of similar length, so that little time goes into padding.

    Each group is given as its rows, (b,), and its tokens up to the end of its longest caption, (b, t).
    """
    lengths = (tokens != PAD).sum(1)
    for group in lengths.argsort(stable=True).split(GROUP_SIZE):
        yield group, tokens[group, : int(lengths[group].max())]
