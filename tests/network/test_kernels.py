"""The fast parts of the network compute what torch computes, with the same gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.network import kernels
from captioner.network.kernels import GRU, LSTM, Dropout, summed_cross_entropy
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("kind", "parts"), [(LSTM, 2), (GRU, 1)])
def test_decoding_step_by_step_is_reading_the_whole(
    kind: type, parts: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = kind(5, 7).to(dtype)
    inputs, first = torch.randn(3, 6, 5, dtype=dtype), torch.randn(parts, 1, 3, 7, dtype=dtype)
    state = tuple(first) if parts == 2 else first[0]
    with torch.inference_mode():
        hidden, after = layer(inputs, state)
        # Steps are not computed as sequences are.
        monkeypatch.setattr(kind.__base__, "forward", lambda *args: pytest.fail("as a sequence"))
        steps = []
        for t in range(6):
            one, state = layer(inputs[:, t : t + 1], state)
            steps.append(one)
    tolerance = 1e-12 if dtype == torch.float64 else 0.03
    torch.testing.assert_close(torch.cat(steps, 1), hidden, rtol=tolerance, atol=tolerance)
    for one, other in zip(state, after, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# --- cross-entropy ---


@pytest.mark.parametrize("rows", [1, 64, 150])
@pytest.mark.parametrize("together", [7, 3200, 2**18])  # logits: fewer than a row has, some rows, all rows
@pytest.mark.parametrize(("smoothing", "dtype"), [(0.0, torch.float32), (0.1, torch.float32), (0.1, torch.float64)])
def test_the_cross_entropy_and_its_gradient_are_those_of_torch(
    rows: int, together: int, smoothing: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_LOGITS", together)
    torch.manual_seed(0)
    logits, targets = torch.randn(rows, 50, dtype=dtype, requires_grad=True), torch.randint(1, 50, (rows,))
    targets[1::3] = PAD
    before = logits.detach().clone()
    found = summed_cross_entropy(logits, targets, smoothing)
    assert torch.equal(logits, before)
    wanted = F.cross_entropy(logits, targets, ignore_index=PAD, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(found, wanted)
    (gradient,), (expected,) = torch.autograd.grad(3 * found, logits), torch.autograd.grad(3 * wanted, logits)
    torch.testing.assert_close(gradient, expected)


def test_logits_far_apart_overflow_nothing() -> None:
    logits = torch.tensor([[300.0, -300.0, 0.0], [-400.0, -400.0, -400.0]], requires_grad=True)
    loss = summed_cross_entropy(logits, torch.tensor([1, 2]), 0.0)
    assert loss.item() == pytest.approx(600.0 + math.log(3), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    third = 1 / 3
    torch.testing.assert_close(gradient, torch.tensor([[1.0, -1.0, 0.0], [third, third, third - 1.0]]))
