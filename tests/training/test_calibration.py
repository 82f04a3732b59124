"""Calibration is measured and mended."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captioner.network.model import Decoder, ModelConfig
from captioner.training.calibration import FeaturesAndTokens, calibration, divide_logits, fit_temperature
from captioner.vocab import END, PAD, START

WORDS, FEATURE = 40, 6


def make_decoder() -> Decoder:
    torch.manual_seed(0)
    config = ModelConfig("none", WORDS, hidden_size=24, embedding_size=24, dropout=0.0, cell="lstm", layers=1)
    decoder = Decoder(config, FEATURE).eval()
    for weights in decoder.parameters():
        weights.data.mul_(4)  # so that it is sure of something
    decoder.output.bias.data[PAD] = -1e4  # which is never written
    return decoder


@torch.no_grad()
def written_by(decoder: Decoder, captions: int) -> list[FeaturesAndTokens]:
    """Captions drawn from the decoder itself, for which its probabilities are right by construction."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(captions, FEATURE, generator=generator)
    tokens, state = torch.full((captions, 1), START), decoder.init_state(features)
    for _ in range(8):
        logits, state = decoder.step(tokens[:, -1], state)
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        ended = (tokens[:, -1:] == END) | (tokens[:, -1:] == PAD)
        tokens = torch.cat([tokens, torch.where(ended, PAD, drawn)], 1)
    return list(zip(features.split(100), tokens.split(100), strict=True))


def test_a_network_is_calibrated_on_its_own_captions_and_mended_where_it_is_not() -> None:
    decoder = make_decoder()
    batches = written_by(decoder, 5000)
    right = calibration(decoder, batches)
    assert right.error < 2.5
    assert sum(right.share) == pytest.approx(1)
    assert fit_temperature(decoder, batches) == pytest.approx(1.0, abs=0.03)

    divide_logits(decoder, 1 / 1.4)  # too sure of itself
    wrong = calibration(decoder, batches)
    assert wrong.error > right.error + 3
    assert sum(c * s for c, s in zip(wrong.confidence, wrong.share, strict=True)) > sum(
        a * s for a, s in zip(wrong.accuracy, wrong.share, strict=True)
    )
    temperature = fit_temperature(decoder, batches)
    assert temperature == pytest.approx(1.4, abs=0.05)
    divide_logits(decoder, temperature)
    assert calibration(decoder, batches).error == pytest.approx(right.error, abs=0.5)


def test_the_error_by_hand() -> None:
    """Three words: sure and right, sure and wrong, and a coin that fell the wrong way."""

    class Told(Decoder):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
            # Of <pad> and two words.
            return torch.tensor([[[0, 0.9, 0.1], [0, 0.9, 0.1], [0, 0.55, 0.45], [0, 0.5, 0.5]]]).log() + 3

    tokens = torch.tensor([[9, 1, 2, 2, PAD]])
    found = calibration(Told(), [(torch.zeros(1, 1), tokens)])
    # In one bin 0.9 twice, of which one was right; in another 0.55, which was wrong.
    assert found.confidence == pytest.approx((0.55, 0.9))
    assert found.accuracy == pytest.approx((0.0, 0.5))
    assert found.share == pytest.approx((1 / 3, 2 / 3))
    assert found.error == pytest.approx(100 * (0.55 / 3 + 0.4 * 2 / 3))


def test_dividing_changes_no_choice() -> None:
    decoder, features = make_decoder(), torch.randn(5, FEATURE)
    tokens = torch.randint(4, WORDS, (5, 7))
    before = decoder(features, tokens)
    divide_logits(decoder, 1.25)
    assert torch.allclose(decoder(features, tokens), before / 1.25, atol=1e-5)
