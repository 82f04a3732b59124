"""bfloat16: only where the processor has it, and with little loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captioner.errors import OptionError
from captioner.network import encoder as precision
from captioner.network.encoder import computing_type, in_bfloat16


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
