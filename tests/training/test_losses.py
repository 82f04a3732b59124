"""Losses: grouped is the same as whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from captioner.network.model import Decoder, ModelConfig
from captioner.training import losses
from captioner.training.captions import CaptionTokens
from captioner.training.losses import caption_loss, grouped_caption_loss
from captioner.vocab import PAD, Vocabulary


def test_groups_by_length_change_nothing_but_the_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vocabulary = Vocabulary.build(["a b c d e f"])
    decoder = Decoder(ModelConfig("none", len(vocabulary), 8, 8, 0.0, "lstm", 1), 3)
    texts = [("a b", "c d e f a"), ("b",), ("c d e", "f f f f f f")]
    tokens = CaptionTokens.of(texts, vocabulary).batch(torch.arange(5))
    features, owner = torch.randn(3, 3), torch.tensor([0, 0, 1, 2, 2])
    whole = caption_loss(decoder, features[owner], tokens, 0.1)
    monkeypatch.setattr(losses, "GROUP_SIZE", 2)
    grouped = grouped_caption_loss(decoder, features, tokens, owner, 0.1)
    assert grouped.item() == pytest.approx(whole.item(), rel=1e-6)
    swapped = grouped_caption_loss(decoder, features, tokens, owner.flip(0), 0.1)
    assert swapped.item() != pytest.approx(whole.item(), rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_loss_and_its_gradients_are_those_of_torchs_cross_entropy(smoothing: float, bfloat16: bool) -> None:
    torch.manual_seed(0)
    decoder = Decoder(ModelConfig("none", 50, 8, 8, 0.0, "lstm", 1), 3)
    features, tokens = torch.randn(40, 3), torch.randint(4, 50, (40, 9))
    tokens[::3, 5:] = PAD

    def value_and_gradients(loss: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            value = loss()
        return value.detach(), list(torch.autograd.grad(value / 100, list(decoder.parameters())))

    def expected() -> torch.Tensor:
        logits, targets = decoder(features, tokens[:, :-1]).flatten(0, 1).float(), tokens[:, 1:].flatten()
        return F.cross_entropy(logits, targets, ignore_index=PAD, reduction="sum", label_smoothing=smoothing)

    value, gradients = value_and_gradients(lambda: caption_loss(decoder, features, tokens, smoothing))
    wanted, wanted_gradients = value_and_gradients(expected)
    torch.testing.assert_close(value, wanted)
    for found, exact in zip(gradients, wanted_gradients, strict=True):
        tolerance = 2e-2 if bfloat16 else 1e-5
        torch.testing.assert_close(found, exact, rtol=tolerance, atol=tolerance * float(exact.abs().max()))
