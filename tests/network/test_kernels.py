"""The fast parts of the network compute what torch computes, with the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.network.encoder import Encoder
from captioner.network.kernels import GRU, LSTM, Dropout, FoldedConvolution, folded_for_training, summed_cross_entropy
from captioner.vocab import PAD

# --- dropout ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_share_and_scale(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = Dropout(share)(torch.ones(999, 333, dtype=dtype))
    zeros = (dropped == 0).double()
    assert zeros.mean().item() == pytest.approx(share, abs=0.003)
    # Not whole rows or columns: the share is the same everywhere, up to chance.
    for axis in (0, 1):
        assert (zeros.mean(axis) - share).abs().max() < 6 * (share * (1 - share) / 333) ** 0.5
    kept = dropped[dropped != 0].double()
    assert torch.allclose(kept, torch.full_like(kept, 1 / (1 - share)), rtol=1e-6 if dtype == torch.float32 else 0.004)


def test_neighbours_are_independent() -> None:
    """Units whose bits come from one draw have nothing to do with each other."""
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(1_000_000)) != 0).double() - 0.5
    for distance in (1, 2, 3, 4):
        assert abs((kept[:-distance] * kept[distance:]).mean().item()) < 0.25 * 5 / 1000


def test_the_gradient_is_dropped_alike_and_the_seed_repeats_it() -> None:
    x = torch.randn(7, 5, requires_grad=True)
    torch.manual_seed(3)
    dropped = Dropout(0.4)(x)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.allclose(dropped, x * gradient)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.4)(x), dropped)
    assert not torch.equal(Dropout(0.4)(x), dropped)


def test_nothing_is_dropped_after_training() -> None:
    x = torch.randn(3, 2)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


# --- LSTM and GRU ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("kind", "parts"), [(LSTM, 2), (GRU, 1)])
def test_layers_and_their_gradients_are_those_of_torch(kind: type, parts: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ours, torchs = kind(5, 7).double(), kind.__base__(5, 7, batch_first=True).double()
    torchs.load_state_dict(ours.state_dict())
    inputs = torch.randn(3, 6, 5, dtype=torch.float64, requires_grad=True)
    state = [torch.randn(1, 3, 7, dtype=torch.float64, requires_grad=True) for _ in range(parts)]
    weights, of_last = torch.randn(3, 6, 7, dtype=torch.float64), torch.randn(parts, 1, 3, 7, dtype=torch.float64)

    def found(layer: nn.RNNBase) -> list[Tensor]:
        hidden, after = layer(inputs, tuple(state) if parts == 2 else state[0])
        last = torch.stack(after) if parts == 2 else after[None]
        loss = (hidden * weights).sum() + (last * of_last).sum()
        return [hidden, last, *torch.autograd.grad(loss, [inputs, *state, *layer.parameters()])]

    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        results = found(ours)
    for one, other in zip(results, found(torchs), strict=True):
        tolerance = 1e-12 if dtype == torch.float64 else 0.02
        assert (one.double() - other).norm() <= tolerance * other.norm()


# --- folded convolutions ---


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


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("stride", "late"), [(1, False), (2, False), (2, True)], ids=["1", "2", "2, as TensorFlow"])
def test_depthwise_gradients_in_bfloat16(side: int, size: int, stride: int, late: bool) -> None:
    torch.manual_seed(0)
    half = size // 2
    padding = torch.nn.ZeroPad2d((half - 1, half) * 2) if late else None
    convolution = torch.nn.Conv2d(4, 4, size, stride, padding=0 if late else half, groups=4, bias=False)
    norm = torch.nn.BatchNorm2d(4).eval()
    layer = FoldedConvolution(convolution, norm, padding)
    assert layer._fast_depthwise == (stride == 2 or size == 5)
    x = torch.randn(2, 4, side, side, requires_grad=True)
    with torch.no_grad():
        shape = layer(x).shape
    weights = torch.linspace(-1, 1, shape.numel()).view(shape)

    def found() -> list[Tensor]:
        return list(torch.autograd.grad((layer(x) * weights).sum(), [x, convolution.weight, norm.bias]))

    exact = found()
    with torch.autocast("cpu", torch.bfloat16):
        rough = found()
    for one, other in zip(rough, exact, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


def test_padding_becomes_a_part_of_the_convolution() -> None:
    folded = folded_for_training(encoder_of("efficientnet_lite2"))
    layers = [layer for layer in folded.modules() if isinstance(layer, FoldedConvolution)]
    assert sum(layer.padding is not None for layer in layers) == 5
    assert sum(layer._fast_depthwise for layer in layers) == 14
    called = [folded.get_submodule(str(node.target)) for node in folded.graph.nodes if node.op == "call_module"]
    assert not any(isinstance(layer, torch.nn.ZeroPad2d) for layer in called)


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


# --- cross-entropy ---


@pytest.mark.parametrize("rows", [1, 64, 150])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_cross_entropy_and_its_gradient_are_those_of_torch(rows: int, smoothing: float) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(rows, 50, requires_grad=True), torch.randint(1, 50, (rows,))
    targets[1::3] = PAD
    found = summed_cross_entropy(logits, targets, smoothing)
    wanted = F.cross_entropy(logits, targets, ignore_index=PAD, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(found, wanted)
    (gradient,), (expected,) = torch.autograd.grad(3 * found, logits), torch.autograd.grad(3 * wanted, logits)
    torch.testing.assert_close(gradient, expected)
