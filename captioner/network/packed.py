"""The decoder's layers for inference, with their weights in oneDNN's order.

oneDNN multiplies by weights in an order of its own. Otherwise it has to rearrange them for every word, which takes as
long as multiplying by them.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from captioner.network.convolutions import computes
from captioner.network.kernels import LSTM
from captioner.network.model import Decoder

_ROWS = 32  # the order does not depend on it, but the operator asks


def packed_for_decoding(decoder: Decoder) -> Decoder:
    """Change a decoder in place, so that it computes the same faster. It is left as it is where torch has no oneDNN.

    It can then not be trained, moved to another device or type, or written to a checkpoint.
    """
    if not computes(decoder.output.weight.dtype, "_linear_pointwise", "_reorder_linear_weight"):
        return decoder
    for name, module in [*decoder.named_modules()]:
        if type(module) is nn.Linear:
            decoder.set_submodule(name, PackedLinear(module.weight, module.bias))
        elif type(module) is LSTM:
            decoder.set_submodule(name, PackedLSTM(module))
    return decoder


class PackedLinear(nn.Module):
    """A linear layer (R, N) -> (R, M) for weights (M, N).

    A row gets the same numbers for any R up to 32, in float32 only if N is at most 1,024.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
        self._bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """(..., N) -> (..., M)"""
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], ""))


class PackedLSTM(nn.Module):
    """A `kernels.LSTM` that reads word by word.

    It multiplies once for word and state together, and keeps the memory cell in float32: in bfloat16 its numbers would
    be rounded after every operation, and that takes longer, too.
    """

    def __init__(self, cell: LSTM) -> None:
        super().__init__()
        of_input, of_hidden, *biases = (
            cell.get_parameter(f"{kind}_l0").detach() for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        self._gates = PackedLinear(torch.cat([of_input, of_hidden], 1), biases[0] + biases[1])

    def forward(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, T, D), two (1, B, H) -> (B, T, H), two (1, B, H)"""
        h, c = state[0][0], state[1][0].float()
        hidden = []
        for x in inputs.unbind(1):
            i, f, g, o = self._gates(torch.cat([x, h], 1)).float().chunk(4, 1)
            c = f.sigmoid_().mul(c).addcmul_(i.sigmoid_(), g.tanh_())
            h = c.tanh().mul_(o.sigmoid_()).to(h.dtype)
            hidden.append(h)
        return torch.stack(hidden, 1), (h.unsqueeze(0), c.unsqueeze(0))
