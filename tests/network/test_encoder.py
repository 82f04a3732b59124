"""The encoder: what is refused, and that it is the same function when it is fused or rounded to bfloat16."""

from __future__ import annotations

import pytest
import torch
from conftest import draw_picture
from torch import nn

from captioner.errors import CaptionerError, CheckpointError, OptionError
from captioner.network import encoder as precision
from captioner.network.convolutions import folded_for_inference
from captioner.network.encoder import Encoder, as_batch, computing_type, in_bfloat16, normalise
from captioner.network.preprocess import Preprocess

BACKBONES = {
    "mobilenet_v2": 1280,
    "resnet18": 512,
    "resnet50": 2048,
    "mobilenet_v3_large": 1280,
    "efficientnet_b0": 1280,
    "convnext_tiny": 768,
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet_18", "unknown encoder 'resnet_18': .* such as mobilenet_v2, .*resnet18"),
        ("fcn_resnet50", "unknown encoder 'fcn_resnet50'"),  # a network of torchvision, but for segmentation
        ("", "unknown encoder ''"),
        ("squeezenet1_0", "squeezenet1_0 has no linear classifier"),
    ],
)
def test_an_encoder_without_a_feature_vector_is_refused(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Encoder(name)
    assert issubclass(CheckpointError, CaptionerError)


@torch.inference_mode()
def random_statistics(encoder: Encoder) -> None:
    """What training leaves behind in BatchNorm, so that folding it is more than dropping it.

    The statistics are about those of some pictures: otherwise all pictures come out alike after dozens of layers.
    """
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.7, 1.3)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = 1.0
        norm.train()
    encoder(torch.randn(8, 3, 64, 64))
    for norm in norms:
        norm.eval()
        norm.running_mean += 0.1 * torch.randn_like(norm.running_mean) * norm.running_var.sqrt()


@pytest.mark.parametrize(("name", "feature_size"), BACKBONES.items())
def test_the_fused_encoder_is_the_same_function(name: str, feature_size: int) -> None:
    torch.manual_seed(0)
    encoder, images = Encoder(name), torch.randn(2, 3, 64, 64)
    random_statistics(encoder)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    fused = folded_for_inference(encoder)
    with torch.inference_mode():
        expected, found = encoder(images), fused(images)
    assert encoder.feature_size == feature_size
    assert found.shape == expected.shape == (2, feature_size)
    scale = (expected[0] - expected[1]).abs().max()  # what tells the pictures apart must survive
    assert scale > 0
    assert (found - expected).abs().max() < 1e-3 * scale
    # It is a copy: faster, with nothing to train, and the encoder is as it was.
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("native", [False, True])
def test_auto_is_what_the_processor_computes_in(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(precision, "native_bfloat16", lambda device_type: native)
    assert computing_type("auto", "cpu") == (torch.bfloat16 if native else torch.float32)
    # What is asked for by name is what one gets.
    assert computing_type("float32", "cpu") == torch.float32
    assert computing_type("bfloat16", "cpu") == torch.bfloat16


def test_another_name_is_refused() -> None:
    with pytest.raises(OptionError, match="precision must be one of auto, float32, bfloat16, not 'half'"):
        computing_type("half", "cpu")


def test_a_network_in_bfloat16_is_a_copy() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    before = network[0].weight.detach().clone()
    rounded = in_bfloat16(network)
    assert {weight.dtype for weight in rounded.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert torch.equal(network[0].weight, before)
    torch.testing.assert_close(rounded[0].weight.detach().float(), before, rtol=2**-6, atol=1e-3)


def test_kernels_keep_their_sums_so_that_even_surfaces_come_out_even() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(64, 64, 3, groups=64, bias=False)
    nn.init.uniform_(network.weight, 0.5, 1.0)
    sums = network.weight.sum((2, 3)).detach()

    def error(rounded: nn.Conv2d) -> float:
        return float((rounded.weight.detach().float().sum((2, 3)) - sums).abs().mean())

    plainly = nn.Conv2d(64, 64, 3, groups=64, bias=False)
    plainly.load_state_dict(network.state_dict())
    assert error(in_bfloat16(network)) < error(plainly.to(torch.bfloat16)) / 2


def test_normalise_is_that_of_torchvision() -> None:
    """`ToTensor` and `Normalize`: divide by 255, take the mean away, divide by the standard deviation."""
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    normalised = normalise(Preprocess(16, mean, std), pixels)
    expected = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normalised, expected)
    assert normalised.dtype == torch.float32
    assert normalised.is_contiguous(memory_format=torch.channels_last)


def test_pictures_are_laid_together_as_the_encoder_wants_them() -> None:
    preprocess = Preprocess(size=32)
    pictures = [preprocess.pixels(draw_picture(index)) for index in range(3)]
    batch = as_batch(pictures)
    assert torch.equal(batch, torch.stack([torch.tensor(picture).permute(2, 0, 1) for picture in pictures]))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    normal = normalise(preprocess, batch)
    assert normal.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normal, normalise(preprocess, batch.contiguous()))
