"""The encoder as it is trained is the encoder: the same features, the same gradients."""

import copy

import pytest
import torch
from torch import Tensor

from captioner.network.encoder import Encoder
from captioner.network.kernels import FoldedConvolution, folded_for_training


def encoder_of(name: str) -> Encoder:
    """Random weights, and BatchNorm with statistics, scales and biases that are not those of an identity."""
    torch.manual_seed(0)
    encoder = Encoder(name)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return encoder


def gradients(encoder: Encoder, network: torch.nn.Module, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Features, and the gradients of a function of them for all weights of `encoder`."""
    encoder.zero_grad()
    features = network(pictures)
    (features.double() * torch.linspace(-1, 1, features.shape[1])).sum().backward()
    return features.detach(), {name: w.grad.clone() for name, w in encoder.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "efficientnet_b0", "densenet121"])
def test_features_and_gradients_are_those_of_the_encoder(name: str) -> None:
    encoder = encoder_of(name).double()
    pictures = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    features, expected = gradients(encoder, encoder, pictures)
    folded, found = gradients(encoder, folded_for_training(encoder), pictures)
    torch.testing.assert_close(folded, features)
    assert found.keys() == expected.keys()
    assert len(found) > 50
    for weights in expected:
        torch.testing.assert_close(found[weights], expected[weights])


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("size", [3, 5])
def test_halving_depthwise_gradient_in_bfloat16(side: int, size: int) -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(4, 4, size, stride=2, padding=size // 2, groups=4, bias=False)
    norm = torch.nn.BatchNorm2d(4).eval()
    layer = FoldedConvolution(convolution, norm)
    x = torch.randn(2, 4, side, side, requires_grad=True)
    weights = torch.linspace(-1, 1, 2 * 4 * ((side + 1) // 2) ** 2).view(2, 4, (side + 1) // 2, -1)

    def found() -> list[Tensor]:
        return list(torch.autograd.grad((layer(x) * weights).sum(), [x, convolution.weight, norm.bias]))

    exact = found()
    with torch.autocast("cpu", torch.bfloat16):
        rough = found()
    for one, other in zip(rough, exact, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


def test_it_shares_the_weights() -> None:
    encoder = encoder_of("mobilenet_v2")
    folded = folded_for_training(encoder)
    before = copy.deepcopy(encoder.state_dict())
    pictures = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first = folded(pictures)
        for weights in encoder.parameters():
            weights.mul_(1.01)
        assert not torch.equal(folded(pictures), first)
    assert encoder.state_dict().keys() == before.keys()
