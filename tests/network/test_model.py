"""The network's invariants, on tiny sizes."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import TINY_ENCODER
from inference.decoders import decode
from torch import Tensor, nn

from captioner.inference.rules import Rules
from captioner.network.model import CaptionModel, Decoder, ModelConfig
from captioner.options import CELLS, DecodeOptions
from captioner.training.losses import caption_loss, real_targets
from captioner.vocab import END, PAD, START

FEATURE = 7


def make_decoder(words: int = 50, dropout: float = 0.0, seed: int = 0, cell: str = "lstm", layers: int = 1) -> Decoder:
    torch.manual_seed(seed)
    return Decoder(ModelConfig("none", 4 + words, 16, 8, dropout, cell, layers), FEATURE)


def random_captions(batch: int, length: int, words: int = 50) -> Tensor:
    """Captions of different lengths, padded: (batch, length + 2) int64"""
    tokens = torch.randint(4, 4 + words, (batch, length + 2))
    tokens[:, 0] = START
    for row, caption in enumerate(tokens):
        end = 1 + row % (length + 1)
        caption[end], caption[end + 1 :] = END, PAD
    return tokens


@pytest.mark.parametrize(("words", "sizes"), [(10, (16, 8)), (3000, (512, 256))])
def test_the_first_loss_is_that_of_a_uniform_guess(words: int, sizes: tuple[int, int]) -> None:
    torch.manual_seed(0)
    decoder = Decoder(ModelConfig("none", 4 + words, *sizes, 0.5, "lstm", 1), FEATURE).eval()
    tokens = random_captions(32, 12, words)
    loss = caption_loss(decoder, torch.randn(32, FEATURE), tokens) / real_targets(tokens)
    assert loss.item() == pytest.approx(math.log(4 + words), abs=0.05)


def test_a_handful_of_captions_is_learned_by_heart() -> None:
    """Each from its picture's feature: the captions begin with the same words."""
    a, b, c, d = range(4, 8)
    captions = [(a, b, c, END), (a, b, d, END), (a, END), (a, b, d, c, b, END), (a, a, a, END)]
    decoder, features = make_decoder(words=4), torch.randn(len(captions), FEATURE)
    tokens = nn.utils.rnn.pad_sequence([torch.tensor([START, *caption]) for caption in captions], batch_first=True)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        loss = caption_loss(decoder, features, tokens) / real_targets(tokens)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05
    assert [
        written.tokens for [written] in decode(decoder.eval(), features, Rules(DecodeOptions("greedy")))
    ] == captions


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_teacher_forcing_equals_step_by_step(cell: str, layers: int) -> None:
    decoder = make_decoder(cell=cell, layers=layers).eval()
    features, tokens = torch.randn(5, FEATURE), random_captions(5, 9)
    state, steps = decoder.init_state(features), []
    for column in tokens.T:
        logits, state = decoder.step(column, state)
        steps.append(logits)
    assert torch.allclose(torch.stack(steps, 1), decoder(features, tokens), atol=1e-6)


def test_the_picture_is_seen_through_the_initial_state() -> None:
    decoder = make_decoder().eval()
    h, c = decoder.init_state(torch.randn(3, FEATURE))
    assert h.shape == c.shape == (1, 3, 16)
    assert not torch.allclose(h[:, 0], h[:, 1])
    assert not torch.allclose(h, c)


def test_features_are_standardised_as_those_of_the_training_pictures_were() -> None:
    decoder, features = make_decoder().eval(), torch.randn(50, FEATURE)
    other = make_decoder().eval()  # the same weights, for features in another unit and around another mean
    decoder.standardise(features)
    other.standardise(30.0 * features + 5.0)
    assert torch.allclose(decoder.init_state(features)[0], other.init_state(30.0 * features + 5.0)[0], atol=1e-5)
    assert not torch.allclose(decoder.init_state(features)[0], other.init_state(features)[0], atol=1e-2)
    assert {"feature_mean", "feature_std"} <= decoder.state_dict().keys()


def test_a_feature_that_hardly_varies_is_not_blown_up() -> None:
    decoder, features = make_decoder().eval(), torch.randn(50, FEATURE)
    features[:, 0] = 1e-6 * torch.randn(50)
    decoder.standardise(features)
    more = features.clone()
    more[:, 0] += 1e-3
    assert torch.allclose(decoder.init_state(features)[0], decoder.init_state(more)[0], atol=0.05)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_padding_is_ignored_by_the_loss(label_smoothing: float) -> None:
    decoder, features, tokens = make_decoder(), torch.randn(6, FEATURE), random_captions(6, 5)
    loss = caption_loss(decoder, features, tokens, label_smoothing)
    more = nn.functional.pad(tokens, (0, 4), value=PAD)
    assert caption_loss(decoder, features, more, label_smoothing).item() == pytest.approx(loss.item(), rel=1e-5)
    alone = sum(
        caption_loss(decoder, features[row : row + 1], caption[caption != PAD].unsqueeze(0), label_smoothing).item()
        for row, caption in enumerate(tokens)
    )
    assert alone == pytest.approx(loss.item(), rel=1e-5)
    assert real_targets(more) == real_targets(tokens) == sum(1 + row % 6 for row in range(6))


def test_dropout_is_for_training_only() -> None:
    decoder, features, tokens = make_decoder(dropout=0.5), torch.randn(4, FEATURE), random_captions(4, 5)
    assert not torch.equal(decoder(features, tokens), decoder(features, tokens))
    decoder.eval()
    assert torch.equal(decoder(features, tokens), decoder(features, tokens))
    assert torch.equal(decoder.init_state(features)[0], decoder.init_state(features)[0])


def test_features_are_dropped_half_as_often_as_other_units() -> None:
    decoder = make_decoder(dropout=0.5, cell="gru").train()
    torch.nn.init.eye_(decoder.h0.weight)
    torch.nn.init.zeros_(decoder.h0.bias)
    [state] = decoder.init_state(torch.ones(20_000, FEATURE))  # (1, B, H)
    dropped = (state[0, :, :FEATURE] == 0).double().mean().item()
    assert dropped == pytest.approx(0.25, abs=0.01)


def test_training_moves_weights_of_the_encoder_but_not_its_statistics() -> None:
    torch.manual_seed(0)
    model = CaptionModel.create(ModelConfig(TINY_ENCODER, 20, 8, 8, 0.5, "lstm", 1)).train()
    assert model.decoder.training
    assert not any(module.training for module in model.encoder.modules())
    norms = [module for module in model.encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    statistics = {name for name, _ in model.encoder.named_buffers()}

    optimiser = torch.optim.SGD(model.parameters(), lr=1e3)
    caption_loss(model.decoder, model.encoder(torch.randn(4, 3, 64, 64)), random_captions(4, 5, 16)).backward()
    assert all(norm.weight.grad is not None and norm.weight.grad.any() for norm in norms)
    assert all(norm.bias.grad is not None and norm.bias.grad.any() for norm in norms)
    optimiser.step()
    moved = {name for name, value in model.encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert norms
    assert statistics
    assert moved == before.keys() - statistics


def test_a_model_is_drawn_from_the_seed() -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return CaptionModel.create(ModelConfig(TINY_ENCODER, 20, 8, 8, 0.5, "lstm", 1)).state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["decoder.h0.weight"], other["decoder.h0.weight"])
