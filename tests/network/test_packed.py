"""A decoder packed for inference computes what it computed before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from captioner.network import packed
from captioner.network.kernels import LSTM
from captioner.network.model import Decoder, ModelConfig
from captioner.network.packed import PackedLinear, PackedLSTM, packed_for_decoding


def decoder_of(dtype: torch.dtype, cell: str = "lstm", layers: int = 1) -> Decoder:
    torch.manual_seed(0)
    settings = {"words": 5, "names": 3, "links": 4, "word_inputs": True, "manner": True, "hidden_scale": 3.0}
    config = ModelConfig("mobilenet_v2", 40, 24, 12, 0.1, cell, layers, **settings)  # type: ignore[arg-type]
    return Decoder(config, 16).to(dtype).eval().requires_grad_(False)


def told(decoder: Decoder, features: Tensor, tokens: Tensor) -> list[Tensor]:
    """What it makes of captions that it reads at once, and word by word, with all that it is told of the pictures."""
    state = decoder.init_state(features)
    found = [*state, decoder(features, tokens), decoder.words(features)]
    for column in tokens.T:
        logits, state = decoder.step(column, state)
        found.append(logits)
    return [*found, *state]


@torch.inference_mode()
@pytest.mark.parametrize(("cell", "layers"), [("lstm", 1), ("lstm", 2), ("gru", 1), ("peephole", 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_it_computes_what_it_computed_before(dtype: torch.dtype, tolerance: float, cell: str, layers: int) -> None:
    decoder = decoder_of(dtype, cell, layers)
    if not packed.computes(dtype, "_linear_pointwise"):
        pytest.skip("oneDNN does not compute in this type here")
    features, tokens = torch.randn(7, 16).to(dtype), torch.randint(40, (7, 6))
    expected = told(decoder, features, tokens)
    fast = packed_for_decoding(copy.deepcopy(decoder))
    assert {type(layer) for layer in fast.modules()}.isdisjoint({nn.Linear, LSTM})
    for one, other in zip(told(fast, features, tokens), expected, strict=True):
        torch.testing.assert_close(one.float(), other.float(), rtol=tolerance, atol=tolerance)


@torch.inference_mode()
def test_the_memory_of_a_packed_lstm_is_not_rounded() -> None:
    if not packed.computes(torch.bfloat16, "_linear_pointwise"):
        pytest.skip("oneDNN does not compute in bfloat16 here")
    torch.manual_seed(0)
    cell = LSTM(5, 7).bfloat16()
    cell.bias_ih_l0[7:14] = 8.0  # it forgets next to nothing
    cell.bias_ih_l0[:7] = -5.0  # and adds very little at a time
    exact = copy.deepcopy(cell).double()
    inputs, state = torch.randn(3, 40, 5).bfloat16(), (torch.zeros(1, 3, 7), torch.ones(1, 3, 7))
    _, (_, expected) = exact(inputs.double(), tuple(part.double() for part in state))
    _, (h, memory) = PackedLSTM(cell)(inputs, (state[0].bfloat16(), state[1]))
    assert (h.dtype, memory.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(memory.double(), expected, rtol=0, atol=0.01)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_does_not_depend_on_those_beside_it(dtype: torch.dtype) -> None:
    if not packed.computes(dtype, "_linear_pointwise"):
        pytest.skip("oneDNN does not compute in this type here")
    torch.manual_seed(0)
    layer, rows = (
        PackedLinear(torch.randn(300, 64).to(dtype), torch.randn(300).to(dtype)),
        torch.randn(32, 64).to(dtype),
    )
    together = layer(rows)
    assert torch.equal(together, torch.cat([layer(row) for row in rows.split(1)]))
    assert torch.equal(together, torch.cat([layer(some) for some in rows.split(5)]))


def test_what_onednn_does_not_compute_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [type(layer) for layer in decoder_of(torch.float64).modules()]
    assert [type(layer) for layer in packed_for_decoding(decoder_of(torch.float64)).modules()] == kinds
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert [type(layer) for layer in packed_for_decoding(decoder_of(torch.float32)).modules()] == kinds
