"""Dropout drops the share it is told to, keeps the mean, and is repeated by its seed."""

import pytest
import torch

from captioner.network.kernels import Dropout


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
