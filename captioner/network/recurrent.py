"""Recurrent layers: torch's own fused RNN and LSTM, its GRU with a faster way back, and an LSTM with
peepholes. One way to call them all.

A layer reads vectors over time and goes on from a state: (B, T, D), state -> (B, T, H), state. Its state is a tuple
of tensors (1, B, H): (h, c) for cells with a memory cell c, (h,) for the others.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.options import CELLS as CELLS

State: TypeAlias = "tuple[Tensor, ...]"


def has_memory(cell: str) -> bool:
    """Whether the state of a cell is (h, c) and not h alone."""
    return cell in ("lstm", "peephole")


class RecurrentLayer(nn.Module):
    """One layer of the cell named, one of CELLS, with random weights."""

    def __init__(self, cell: str, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.memory = has_memory(cell)
        if cell == "peephole":
            self.cell: nn.Module = PeepholeLSTM(input_size, hidden_size)
        elif cell == "lstm":
            self.cell = nn.LSTM(input_size, hidden_size, batch_first=True)
        elif cell == "gru":
            self.cell = GRU(input_size, hidden_size)
        else:
            nonlinearity = "relu" if cell == "rnn-relu" else "tanh"
            rnn = nn.RNN(input_size, hidden_size, batch_first=True, nonlinearity=nonlinearity)
            if nonlinearity == "relu":
                # Le et al. 2015, "A simple way to initialize recurrent networks of rectified linear units": from the
                # identity, a state neither dies nor explodes over time. A bias would be added to it at every step.
                nn.init.eye_(rnn.get_parameter("weight_hh_l0"))
                nn.init.zeros_(rnn.get_parameter("bias_ih_l0"))
                nn.init.zeros_(rnn.get_parameter("bias_hh_l0"))
            self.cell = rnn

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, T, D), state -> (B, T, H), state"""
        hidden, after = self.cell(inputs, state if self.memory else state[0])
        return hidden, after if self.memory else (after,)


class GRU(nn.GRU):
    """torch's GRU with one layer, batch first: the same weights and the same function, with a faster way back.

    z, r = sigma(W_x. x_t + b_x. + W_h. h_{t-1} + b_h.); n = tanh(W_xn x_t + b_xn + r * (W_hn h_{t-1} + b_hn));
    h_t = n + z * (h_{t-1} - n). On a processor torch adds up the gradient of the weights step by step; here it is one
    product over all steps at the end, which with the smaller number of operations saves an eighth of the layer's time
    (`python benchmarks/training.py`). The rows of the weights are those of r, z and n.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # never packed
        """(B, T, D), (1, B, H) -> (B, T, H), (1, B, H)"""
        if not torch.is_grad_enabled() or inputs.device.type != "cpu":
            result: tuple[Tensor, Tensor] = super().forward(inputs, state)
            return result
        low = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else inputs.dtype
        weights = [
            self.get_parameter(f"{kind}_l0").to(low) for kind in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
        ]
        with torch.autocast("cpu", enabled=False):
            gates = F.linear(inputs.transpose(0, 1).to(low), *weights[:2])
            hidden: Tensor = _GRUSteps.apply(gates, state[0].to(low), *weights[2:])  # type: ignore[no-untyped-call]  # torch's
        return hidden.transpose(0, 1), hidden[-1:]


class _GRUSteps(torch.autograd.Function):
    """The recurrent part: what the inputs give to the gates (T, B, 3H), and h_0 (B, H) -> h_1 to h_T (T, B, H)."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, first: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        steps, batch, size = len(gates), *first.shape
        hidden = gates.new_empty(steps + 1, batch, size)
        hidden[0] = first
        rz, n = gates.new_empty(steps, batch, 2 * size), torch.empty_like(hidden[1:])
        products = torch.empty_like(n)  # W_hn h_{t-1} + b_hn
        from_hidden, turned = gates.new_empty(batch, 3 * size), weight.t()
        for t in range(steps):
            torch.addmm(bias, hidden[t], turned, out=from_hidden)
            torch.add(gates[t, :, : 2 * size], from_hidden[:, : 2 * size], out=rz[t]).sigmoid_()
            products[t] = from_hidden[:, 2 * size :]
            torch.addcmul(gates[t, :, 2 * size :], rz[t, :, :size], products[t], out=n[t]).tanh_()
            torch.lerp(n[t], hidden[t], rz[t, :, size:], out=hidden[t + 1])
        ctx.save_for_backward(hidden, rz, n, products, weight)
        return hidden[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        hidden, rz, n, products, weight = ctx.saved_tensors
        steps, batch, size = n.shape
        r, z = rz.split(size, -1)
        # How r, z, W_hn h + b_hn and W_xn x + b_xn, all before the nonlinearity, change h_t: (T, B, 4, H)
        factors = gradient.new_empty(steps, batch, 4, size)
        through_n = torch.mul(1 - z, 1 - n * n, out=factors[:, :, 3])
        torch.mul(through_n, r, out=factors[:, :, 2])
        torch.mul(z * (1 - z), hidden[:-1] - n, out=factors[:, :, 1])
        torch.mul(through_n * products, r * (1 - r), out=factors[:, :, 0])
        found = torch.empty_like(factors)
        back = torch.zeros_like(hidden[0])  # of h_t, through the later steps
        for t in reversed(range(steps)):
            back = back + gradient[t]
            torch.mul(factors[t], back[:, None], out=found[t])
            back = torch.addmm(back * z[t], found[t, :, :3].flatten(1), weight)
        of_gates = found[:, :, :3].flatten(2)  # of W_h h + b_h
        return (
            found[:, :, [0, 1, 3]].flatten(2),
            back,
            of_gates.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1),
            of_gates.sum((0, 1)),
        )


class PeepholeLSTM(nn.Module):
    """An LSTM whose gates see the memory cell (Gers and Schmidhuber 2000, "Recurrent nets that time and count").

    i_t = sigma(W_xi x_t + W_hi h_{t-1} + p_i * c_{t-1} + b_i), f_t likewise with p_f;
    c_t = f_t * c_{t-1} + i_t * tanh(W_xc x_t + W_hc h_{t-1} + b_c);
    o_t = sigma(W_xo x_t + W_ho h_{t-1} + p_o * c_t + b_o);  h_t = o_t * tanh(c_t).
    The rows of the weights are those of i, f, c and o, as in torch's LSTM.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(input_size, 4 * hidden_size)
        self.hidden = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.peepholes = nn.Parameter(torch.empty(3, hidden_size))  # p_i, p_f, p_o
        bound = 1 / math.sqrt(hidden_size)  # as torch's recurrent layers
        for weights in self.parameters():
            nn.init.uniform_(weights, -bound, bound)

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, T, D), (h, c) -> (B, T, H), (h, c)"""
        h, c = state[0][0], state[1][0]  # (B, H) each
        p_i, p_f, p_o = self.peepholes
        outputs = []
        for x in self.inputs(inputs).unbind(1):
            i, f, g, o = (x + self.hidden(h)).chunk(4, dim=-1)
            i, f = torch.sigmoid(i + p_i * c), torch.sigmoid(f + p_f * c)
            c = f * c + i * torch.tanh(g)
            h = torch.sigmoid(o + p_o * c) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs, 1), (h.unsqueeze(0), c.unsqueeze(0))
