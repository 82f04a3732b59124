"""Recurrent layers: torch's RNN, its LSTM and GRU with a faster backward pass, and an LSTM with peepholes.

All are called alike: (B, T, D), state -> (B, T, H), state. The state is a tuple of tensors (1, B, H): (h, c) for cells
with a memory cell c, (h,) for the others.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor, nn

from captioner.network.kernels import GRU, LSTM

State: TypeAlias = "tuple[Tensor, ...]"


def has_memory(cell: str) -> bool:
    """Whether the state of a cell is (h, c) and not (h,)."""
    return cell in ("lstm", "peephole")


class RecurrentLayer(nn.Module):
    """One layer with random weights; `cell` is one of CELLS."""

    def __init__(self, cell: str, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.memory = has_memory(cell)
        if cell == "peephole":
            self.cell: nn.Module = PeepholeLSTM(input_size, hidden_size)
        elif cell == "lstm":
            self.cell = LSTM(input_size, hidden_size)
            open_forget_gate(self.cell.get_parameter("bias_ih_l0"))
            open_forget_gate(self.cell.get_parameter("bias_hh_l0"), 0.0)
        elif cell == "gru":
            self.cell = GRU(input_size, hidden_size)
        else:
            kind = "relu" if cell == "rnn-relu" else "tanh"
            self.cell = nn.RNN(input_size, hidden_size, batch_first=True, nonlinearity=kind)
            if kind == "relu":
                # Le et al. 2015, "A simple way to initialize recurrent networks of rectified linear units": with the
                # identity, a state neither vanishes nor explodes. A bias would be added at every step.
                nn.init.eye_(self.cell.get_parameter("weight_hh_l0"))
                nn.init.zeros_(self.cell.get_parameter("bias_ih_l0"))
                nn.init.zeros_(self.cell.get_parameter("bias_hh_l0"))

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, T, D), state -> (B, T, H), state"""
        hidden, after = self.cell(inputs, state if self.memory else state[0])
        return hidden, after if self.memory else (after,)


def open_forget_gate(bias: Tensor, value: float = 1.0) -> None:
    """Set the forget gate's part of an LSTM's biases, (4H,) in the order i, f, c, o.

    With 1, a new memory cell keeps most of what it holds (Gers et al. 2000, "Learning to forget"; Jozefowicz et al.
    2015, "An empirical exploration of recurrent network architectures"), here what it was told of the picture.
    """
    nn.init.constant_(bias.chunk(4)[1], value)


class PeepholeLSTM(nn.Module):
    """An LSTM whose gates also see the memory cell (Gers and Schmidhuber 2000, "Recurrent nets that time and count").

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
        bound = 1 / math.sqrt(hidden_size)  # as in torch's recurrent layers
        for weights in self.parameters():
            nn.init.uniform_(weights, -bound, bound)
        open_forget_gate(self.inputs.bias)

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
