"""Recurrent cells and back-propagation through time (BPTT), in NumPy float64, straight from the equations.

How to read it. A cell is two functions. `step` computes the state s_t from the input x_t and the state s_{t-1}, and
returns a memo of what it met on the way. `back` goes the same way backwards: from ds_t, the gradient of the loss with
respect to s_t, it computes dx_t, ds_{t-1} and this step's share of the gradient of every weight. Each line of `back`
is the chain rule for one line of `step`, in the opposite order.

`run` chains the steps, `back_through_time` chains them backwards. That is all there is to BPTT: the weights are the
same at every step, so their gradient is the sum over the steps; and a state is used twice, by the layer above at the
same step and by its own layer at the next, so its gradient is the sum of what comes back from both.

Symbols: x_t input (D), h_t hidden state (H), c_t memory cell (H); sigma is the logistic function, * goes element by
element, and dz is the gradient of the loss with respect to z. a_g is what a gate g has before its nonlinearity. The
equations are for one column vector x_t. The code has a batch of them as rows, (B, D), so W x_t becomes `x @ W.T`, its
gradients become dx = `da @ W` and dW = `da.T @ x`, and the gradient of a bias is a sum over the rows.

A state is a tuple: (h,), or (h, c) where there is a memory cell. Weights and their gradients are dictionaries with the
same names: W_xi leads from the input to gate i, W_hi from the hidden state, b_i is its bias, p_i its peephole.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
State: TypeAlias = tuple[Array, ...]
Weights: TypeAlias = dict[str, Array]


def sigma(a: Array) -> Array:
    """The logistic function; its derivative is sigma (1 - sigma)."""
    return 1 / (1 + np.exp(-a))


def gate(w: Weights, name: str, x: Array, h: Array) -> Array:
    """a = W_x x_t + W_h h_{t-1} + b, for the gate named"""
    return x @ w[f"W_x{name}"].T + h @ w[f"W_h{name}"].T + w[f"b_{name}"]


def gate_back(w: Weights, name: str, x: Array, h: Array, da: Array) -> tuple[Array, Array, Weights]:
    """From da of a gate to its share of dx_t and of dh_{t-1}, and to the gradients of its weights."""
    dw = {f"W_x{name}": da.T @ x, f"W_h{name}": da.T @ h, f"b_{name}": da.sum(0)}
    return da @ w[f"W_x{name}"], da @ w[f"W_h{name}"], dw


class RNN:
    """The simple recurrent network (Elman 1990, "Finding structure in time")."""

    def step(self, w: Weights, x: Array, state: State) -> tuple[State, Any]:
        (h_prev,) = state
        h = np.tanh(x @ w["W_x"].T + h_prev @ w["W_h"].T + w["b_h"])  # h_t = tanh(W_x x_t + W_h h_{t-1} + b_h)
        return (h,), (x, h_prev, h)

    def back(self, w: Weights, memo: Any, d_state: State) -> tuple[Array, State, Weights]:
        x, h_prev, h = memo
        (dh,) = d_state
        da = dh * (1 - h**2)  # tanh' = 1 - tanh^2
        dw = {"W_x": da.T @ x, "W_h": da.T @ h_prev, "b_h": da.sum(0)}
        return da @ w["W_x"], (da @ w["W_h"],), dw  # dx_t = W_x^T da, dh_{t-1} = W_h^T da


class ReluRNN:
    """The same with max(0, a) in place of tanh."""

    def step(self, w: Weights, x: Array, state: State) -> tuple[State, Any]:
        (h_prev,) = state
        h = np.maximum(0, x @ w["W_x"].T + h_prev @ w["W_h"].T + w["b_h"])
        return (h,), (x, h_prev, h)

    def back(self, w: Weights, memo: Any, d_state: State) -> tuple[Array, State, Weights]:
        x, h_prev, h = memo
        (dh,) = d_state
        da = dh * (h > 0)  # a ReLU lets the gradient of an active unit through and stops all others
        dw = {"W_x": da.T @ x, "W_h": da.T @ h_prev, "b_h": da.sum(0)}
        return da @ w["W_x"], (da @ w["W_h"],), dw


class LSTM:
    """Long short-term memory, with a forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000)."""

    def step(self, w: Weights, x: Array, state: State) -> tuple[State, Any]:
        h_prev, c_prev = state
        i = sigma(gate(w, "i", x, h_prev))  # input gate: what is written
        f = sigma(gate(w, "f", x, h_prev))  # forget gate: what is kept
        o = sigma(gate(w, "o", x, h_prev))  # output gate: what is shown
        g = np.tanh(gate(w, "c", x, h_prev))  # c~, the candidate
        c = f * c_prev + i * g  # c_t = f * c_{t-1} + i * c~
        h = o * np.tanh(c)  # h_t = o * tanh(c_t)
        return (h, c), (x, h_prev, c_prev, i, f, o, g, c)

    def back(self, w: Weights, memo: Any, d_state: State) -> tuple[Array, State, Weights]:
        x, h_prev, c_prev, i, f, o, g, c = memo
        dh, dc = d_state
        do = dh * np.tanh(c)
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)  # c_t is used twice: in c_{t+1}, and through h_t
        di, df, dg = dc * g, dc * c_prev, dc * i
        dc_prev = dc * f  # the short way back: no matrix and no tanh on it, only the forget gate
        # sigma' = sigma (1 - sigma), tanh' = 1 - tanh^2
        da = {"i": di * i * (1 - i), "f": df * f * (1 - f), "o": do * o * (1 - o), "c": dg * (1 - g**2)}
        dx, dh_prev, dw = np.zeros_like(x), np.zeros_like(h_prev), {}
        for name in "ifoc":
            dx_share, dh_share, dw_gate = gate_back(w, name, x, h_prev, da[name])
            dx, dh_prev, dw = dx + dx_share, dh_prev + dh_share, dw | dw_gate
        return dx, (dh_prev, dc_prev), dw


class PeepholeLSTM:
    """An LSTM whose gates see the memory cell (Gers and Schmidhuber 2000, "Recurrent nets that time and count").

    The input and the forget gate see c_{t-1}; the output gate, which acts after the memory has changed, sees c_t.
    """

    def step(self, w: Weights, x: Array, state: State) -> tuple[State, Any]:
        h_prev, c_prev = state
        i = sigma(gate(w, "i", x, h_prev) + w["p_i"] * c_prev)
        f = sigma(gate(w, "f", x, h_prev) + w["p_f"] * c_prev)
        g = np.tanh(gate(w, "c", x, h_prev))
        c = f * c_prev + i * g
        o = sigma(gate(w, "o", x, h_prev) + w["p_o"] * c)
        h = o * np.tanh(c)
        return (h, c), (x, h_prev, c_prev, i, f, o, g, c)

    def back(self, w: Weights, memo: Any, d_state: State) -> tuple[Array, State, Weights]:
        x, h_prev, c_prev, i, f, o, g, c = memo
        dh, dc = d_state
        da_o = dh * np.tanh(c) * o * (1 - o)
        dc = dc + dh * o * (1 - np.tanh(c) ** 2) + da_o * w["p_o"]  # c_t is used a third time: by the gate o
        da_i, da_f, da_c = dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g**2)
        dc_prev = dc * f + da_i * w["p_i"] + da_f * w["p_f"]
        dx, dh_prev = np.zeros_like(x), np.zeros_like(h_prev)
        dw = {"p_i": (da_i * c_prev).sum(0), "p_f": (da_f * c_prev).sum(0), "p_o": (da_o * c).sum(0)}
        for name, da in (("i", da_i), ("f", da_f), ("o", da_o), ("c", da_c)):
            dx_share, dh_share, dw_gate = gate_back(w, name, x, h_prev, da)
            dx, dh_prev, dw = dx + dx_share, dh_prev + dh_share, dw | dw_gate
        return dx, (dh_prev, dc_prev), dw


class GRU:
    """The gated recurrent unit as torch and captioner have it.

    The reset gate r acts after the recurrent product, which keeps a bias of its own, b_hn. z is the share of the old
    state that stays.
    """

    def step(self, w: Weights, x: Array, state: State) -> tuple[State, Any]:
        (h_prev,) = state
        r = sigma(gate(w, "r", x, h_prev))
        z = sigma(gate(w, "z", x, h_prev))
        m = h_prev @ w["W_hn"].T + w["b_hn"]
        n = np.tanh(x @ w["W_xn"].T + w["b_xn"] + r * m)  # n = tanh(W_xn x_t + b_xn + r * (W_hn h_{t-1} + b_hn))
        h = (1 - z) * n + z * h_prev  # h_t = (1 - z) * n + z * h_{t-1}
        return (h,), (x, h_prev, r, z, m, n)

    def back(self, w: Weights, memo: Any, d_state: State) -> tuple[Array, State, Weights]:
        x, h_prev, r, z, m, n = memo
        (dh,) = d_state
        da_n = dh * (1 - z) * (1 - n**2)
        da_z = dh * (h_prev - n) * z * (1 - z)
        dm = da_n * r
        da_r = da_n * m * r * (1 - r)
        dx_r, dh_r, dw_r = gate_back(w, "r", x, h_prev, da_r)
        dx_z, dh_z, dw_z = gate_back(w, "z", x, h_prev, da_z)
        dw_n = {"W_xn": da_n.T @ x, "b_xn": da_n.sum(0), "W_hn": dm.T @ h_prev, "b_hn": dm.sum(0)}
        dh_prev = dh * z + dh_r + dh_z + dm @ w["W_hn"]  # dh * z is the short way back, as dc * f in an LSTM
        return dx_r + dx_z + da_n @ w["W_xn"], (dh_prev,), dw_r | dw_z | dw_n


class TextbookGRU:
    """The gated recurrent unit as textbooks have it (Cho et al. 2014): another function than torch's, see `GRU`.

    The reset gate r acts before the recurrent product. u is the share of the state that is new: u = 1 - z.
    """

    def step(self, w: Weights, x: Array, state: State) -> tuple[State, Any]:
        (h_prev,) = state
        u = sigma(gate(w, "u", x, h_prev))
        r = sigma(gate(w, "r", x, h_prev))
        g = np.tanh(gate(w, "c", x, r * h_prev))  # c~ = tanh(W [r * h_{t-1}, x_t] + b)
        h = u * g + (1 - u) * h_prev  # h_t = u * c~ + (1 - u) * h_{t-1}
        return (h,), (x, h_prev, u, r, g)

    def back(self, w: Weights, memo: Any, d_state: State) -> tuple[Array, State, Weights]:
        x, h_prev, u, r, g = memo
        (dh,) = d_state
        da_c = dh * u * (1 - g**2)
        da_u = dh * (g - h_prev) * u * (1 - u)
        dx_c, dh_reset, dw_c = gate_back(w, "c", x, r * h_prev, da_c)  # with respect to r * h_{t-1}
        da_r = dh_reset * h_prev * r * (1 - r)
        dx_r, dh_r, dw_r = gate_back(w, "r", x, h_prev, da_r)
        dx_u, dh_u, dw_u = gate_back(w, "u", x, h_prev, da_u)
        dh_prev = dh * (1 - u) + dh_reset * r + dh_r + dh_u
        return dx_c + dx_r + dx_u, (dh_prev,), dw_c | dw_r | dw_u


Cell: TypeAlias = "RNN | ReluRNN | LSTM | PeepholeLSTM | GRU | TextbookGRU"


def run(cell: Cell, w: Weights, xs: Array, state: State) -> tuple[Array, State, list[Any]]:
    """Inputs (B, T, D) and the state before them to hidden states (B, T, H), the state after them, and memos."""
    hs, memos = [], []
    for t in range(xs.shape[1]):
        state, memo = cell.step(w, xs[:, t], state)
        hs.append(state[0])
        memos.append(memo)
    return np.stack(hs, 1), state, memos


def back_through_time(
    cell: Cell, w: Weights, memos: list[Any], d_hs: Array, d_state: State, k: int | None = None
) -> tuple[Array, State, Weights]:
    """BPTT through one layer: the gradients of its inputs (B, T, D), of the state before them, and of its weights.

    `d_hs` (B, T, H) comes from above: the layer that reads h_t at the same step. `d_state` comes from after the end.

    With `k` it is truncated BPTT: the gradient is cut every k steps. The forward pass is the same, so the state that
    enters the steps k, 2k, ... still carries all it has seen; but there it counts as a given number, not as
    something that weights have computed, and nothing flows back into it. A step learns of losses at most k - 1 steps
    later. What that spares is memory: the memos of earlier steps may be thrown away.
    """
    dw = {name: np.zeros_like(value) for name, value in w.items()}
    dxs = []
    for t in reversed(range(len(memos))):
        if k is not None and (t + 1) % k == 0:
            d_state = tuple(np.zeros_like(part) for part in d_state)  # the cut between step t and step t + 1
        dh, *rest = d_state
        d_state = (dh + d_hs[:, t], *rest)  # dh_t: from step t + 1, and from above
        dx, d_state, dw_t = cell.back(w, memos[t], d_state)
        dw = {name: dw[name] + dw_t[name] for name in dw}  # the same weights at every step
        dxs.append(dx)
    return np.stack(dxs[::-1], 1), d_state, dw
