"""Convolutions with the layers around them: the same functions, with the same gradients."""

from __future__ import annotations

import copy
import operator

import pytest
import torch
from torch import Tensor, fx, nn

from captioner.network import convolutions
from captioner.network.convolutions import (
    FoldedConvolution,
    FusedConvolution,
    folded_for_inference,
    folded_for_training,
    fused_for_inference,
)
from captioner.network.encoder import Encoder, in_bfloat16


class Backbone:
    """What an encoder has, for a network of a few layers."""

    def __init__(self, network: nn.Module) -> None:
        self.backbone = network


def called(network: nn.Module) -> list[nn.Module]:
    """The layers that the graph of a network calls, in order."""
    assert isinstance(network, fx.GraphModule)
    return [network.get_submodule(str(node.target)) for node in network.graph.nodes if node.op == "call_module"]


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


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "efficientnet_b0", "densenet121", "efficientnet_lite2"])
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


@pytest.mark.parametrize("activation", [None, nn.ReLU6, nn.ReLU])
@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize(
    ("channels", "groups", "size", "stride", "late"),
    [
        *[(4, 4, size, stride, late) for size in (3, 5) for stride, late in ((1, 0), (2, 0), (2, 1))],
        (32, 32, 5, 1, 0),
        (32, 32, 5, 2, 1),
        (4, 4, 3, 3, 0),
        (4, 2, 3, 1, 0),
        (4, 1, 1, 1, 0),
        (4, 1, 3, 2, 1),
    ],
)
def test_gradients_in_bfloat16(
    channels: int, groups: int, size: int, stride: int, late: int, side: int, activation: type | None
) -> None:
    """With padding on all sides, or as in TensorFlow, with one row and one column less before."""
    torch.manual_seed(0)
    half = size // 2
    convolution = nn.Conv2d(channels, channels, size, stride, 0 if late else half, groups=groups, bias=False)
    norm = nn.BatchNorm2d(channels).eval()
    before = [nn.ZeroPad2d((half - 1, half) * 2)] if late else []
    network = nn.Sequential(*before, convolution, norm, *([activation()] if activation else []))
    folded = folded_for_training(Backbone(network))  # type: ignore[arg-type]
    assert [type(layer) for layer in called(folded)] == [FoldedConvolution]
    x = torch.randn(2, channels, side, side, requires_grad=True)
    with torch.no_grad():
        linear = network[: len(before) + 2](x)
    # Where an activation bends, rounding decides.
    weights = torch.randn(linear.shape) * (linear.abs() > 0.05) * ((linear - 6).abs() > 0.05)

    def found(computed: nn.Module) -> list[Tensor]:
        y = computed(x)
        of = torch.autograd.grad((y * weights).sum(), [x, convolution.weight, norm.bias])
        return [y, *of]

    exact = found(network)
    with torch.autocast("cpu", torch.bfloat16):
        rough = found(folded)
    for one, other in zip(rough, exact, strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() < 0.02 * other.norm()


def test_only_sums_and_pooling_are_left() -> None:
    folded = folded_for_training(encoder_of("efficientnet_lite2"))
    assert {type(layer) for layer in called(folded)} == {FoldedConvolution, nn.AdaptiveAvgPool2d, nn.Identity}
    fused = fused_for_inference(folded_for_inference(encoder_of("efficientnet_lite2")))
    assert {type(layer) for layer in called(fused)} == {FusedConvolution, nn.AdaptiveAvgPool2d, nn.Identity}
    assert not any(node.target in (operator.add, operator.iadd) for node in fused.graph.nodes)


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


# --- inference ---


@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "resnet18", "efficientnet_b0", "mobilenet_v3_large", "efficientnet_lite2"]
)
@torch.inference_mode()
def test_a_fused_network_computes_the_same(name: str, dtype: torch.dtype, pictures: int) -> None:
    network = folded_for_inference(encoder_of(name))
    images = torch.randn(pictures, 3, 64, 64).to(memory_format=torch.channels_last)
    expected = network(images)
    if dtype == torch.bfloat16:
        rounded = in_bfloat16(network)
        error = (rounded(images.bfloat16()) - expected).norm()
        found = fused_for_inference(rounded)(images.bfloat16())
        assert (found - expected).norm() < 1.2 * error  # fewer results are rounded
    else:
        found = fused_for_inference(network)(images)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert found.shape == expected.shape


@torch.inference_mode()
def test_a_picture_alone_may_be_of_another_size() -> None:
    network = folded_for_inference(encoder_of("efficientnet_lite2"))
    fused = fused_for_inference(copy.deepcopy(network))
    for side in (64, 96, 64):
        image = torch.randn(1, 3, side, side)
        torch.testing.assert_close(fused(image), network(image), rtol=1e-3, atol=1e-3)


class Tail(nn.Module):
    """Layers after a convolution that look as if they could be computed with it, but cannot."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.activation = kind, nn.ReLU(inplace=True)
        self.padding = nn.ZeroPad2d((2, 0, 0, 1))
        self.convolution = nn.Conv2d(3, 3, 3)
        self.same = nn.Conv2d(3, 3, 3, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "padding of its own on each side":
            return self.convolution(self.padding(x))
        y = self.convolution(x)
        if self.kind == "padding by name":
            return self.activation(self.same(x))
        if self.kind == "a number is added":
            return y + 1.0
        if self.kind == "it is added to itself":
            return y + y
        if self.kind == "it is used twice":
            return self.activation(y.clone()) + y
        assert self.kind == "what it is added to changes in between"
        z = torch.ones_like(y)
        y = self.convolution(x)
        z.mul_(2.0)
        return z + y


@pytest.mark.parametrize(
    "kind",
    [
        "padding of its own on each side",
        "padding by name",
        "a number is added",
        "it is added to itself",
        "it is used twice",
        "what it is added to changes in between",
    ],
)
@torch.inference_mode()
def test_what_cannot_be_fused_stays(kind: str) -> None:
    network = fx.symbolic_trace(Tail(kind).eval())
    x = torch.randn(2, 3, 9, 9)
    expected = network(x)
    torch.testing.assert_close(fused_for_inference(network)(x), expected)


@torch.inference_mode()
def test_a_network_in_double_precision_stays_as_it_is() -> None:
    network = folded_for_inference(encoder_of("mobilenet_v2")).double()
    before = called(network)
    assert called(fused_for_inference(network)) == before


@torch.inference_mode()
def test_without_onednn_the_network_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    network = folded_for_inference(encoder_of("mobilenet_v2"))
    before = called(network)
    assert called(fused_for_inference(network)) == before
    # Training then takes torch's own gradients.
    assert not any(
        layer._fast
        for layer in called(folded_for_training(encoder_of("mobilenet_v2")))
        if isinstance(layer, FoldedConvolution)
    )


def test_gradients_of_large_kernels_are_exact_in_float32() -> None:
    """The products in which several channels see each other add nothing of a neighbour's."""
    torch.manual_seed(0)
    x, gradient = torch.randn(2, 32, 12, 12), torch.randn(2, 32, 6, 6)
    weight = torch.randn(32, 1, 5, 5, requires_grad=True)
    place: object = ([2, 2], [2, 2], [1, 1], 32)
    y = convolutions._Convolution.apply(x, weight, torch.zeros(32, requires_grad=True), place, 0, ("none", [], ""))  # type: ignore[no-untyped-call]
    (found,) = torch.autograd.grad(y, weight, gradient)
    (expected,) = torch.autograd.grad(nn.functional.conv2d(x, weight, None, 2, 2, 1, 32), weight, gradient)
    torch.testing.assert_close(found, expected)
