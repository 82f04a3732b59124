"""The whole captioner after its encoder, in NumPy float64: forward, loss, and the gradient of everything.

    v -> h_0 (and c_0) of each layer
    x_t -> embedding -> layer 1 -> ... -> layer L -> y_t -> softmax -> P(x_{t+1} | picture, x_1 ... x_t)

Tokens x_1 ... x_{T+1} are teacher-forced: the network reads the true x_t, whatever it would have written itself, and
is asked for x_{t+1}. So all its inputs are known before it starts. Symbols as in `cells`, and: v the picture's
feature (F), E the embeddings (V, D), y_t the logits (V), L the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracles.cells import Array, Cell, State, Weights, back_through_time, run

PAD = 0


@dataclass(frozen=True)
class Network:
    """The weights of a decoder of L layers.

    `inject` has W_v (L * H, F) and b_v of h_0 and, where there is a memory, of c_0. `output` has W_y (V, H) and b_y.
    `s` multiplies the hidden states before the output layer. With `linear_memory` c_0 is not squashed.
    """

    cell: Cell
    layers: list[Weights]
    inject: list[Weights]
    embeddings: Array
    output: Weights
    mean: Array
    std: Array
    s: float = 1.0
    linear_memory: bool = False

    def squashes(self, part: int) -> bool:
        """Whether part 0 (h_0) or 1 (c_0) of the state goes through tanh."""
        return part == 0 or not self.linear_memory


@dataclass(frozen=True)
class Forward:
    """What the forward pass gives and the way back needs.

    `states` are those before the first token and after the last, each part (L, B, H). Of layer l, `memos[l]` are its
    steps. `top` (B, T, H) are the hidden states of the last layer.
    """

    v: Array
    tokens: NDArray[np.int64]
    states: tuple[State, State]
    memos: list[list[Any]]
    top: Array
    logits: Array
    loss: float


@dataclass(frozen=True)
class Gradients:
    """The gradient of the loss with respect to each weight of a Network, and to the pictures' features (B, F)."""

    layers: list[Weights]
    inject: list[Weights]
    embeddings: Array
    output: Weights
    features: Array

    def all(self) -> list[Array]:
        """Those of the weights"""
        groups = [*self.layers, *self.inject, self.output]
        return [self.embeddings, *(gradient for group in groups for gradient in group.values())]


def softmax(y: Array) -> Array:
    exponents = np.exp(y - y.max(-1, keepdims=True))  # the largest made 0: the same result, and no overflow
    return exponents / exponents.sum(-1, keepdims=True)


def loss_of(logits: Array, targets: NDArray[np.int64]) -> tuple[float, Array]:
    """The loss of logits (B, T, V) at the tokens that should follow, (B, T), and its gradient (B, T, V).

    L = -sum_t log softmax(y_t)[x_{t+1}], the mean over all tokens of the batch that are not padding.
    """
    p, real = softmax(logits), targets != PAD
    batch, time = np.indices(targets.shape)
    loss = -np.log(p[batch, time, targets])[real].mean()
    dy = p.copy()
    dy[batch, time, targets] -= 1  # dL/dy = softmax(y) - onehot(x_{t+1})
    return float(loss), dy * real[..., None] / real.sum()


def forward(net: Network, features: Array, tokens: NDArray[np.int64]) -> Forward:
    """Features (B, F) and tokens (B, T + 1), padded at the end, to everything up to the loss."""
    v = (features - net.mean) / net.std
    # h_0 = tanh(W_v v + b_v), and c_0 with or without the tanh
    injected = [v @ w["W_v"].T + w["b_v"] for w in net.inject]
    squashed = [np.tanh(a) if net.squashes(part) else a for part, a in enumerate(injected)]
    # of every layer: (B, L * H) -> (L, B, H)
    before = tuple(a.reshape(len(v), len(net.layers), -1).transpose(1, 0, 2) for a in squashed)
    hs = net.embeddings[tokens[:, :-1]]  # (B, T, D)
    after, memos = [], []
    for layer, w in enumerate(net.layers):
        # Layer l reads the hidden states of layer l - 1: its x_t is their h_t.
        hs, state, memo = run(net.cell, w, hs, tuple(part[layer] for part in before))
        after.append(state)
        memos.append(memo)
    logits = net.s * hs @ net.output["W_y"].T + net.output["b_y"]  # y_t = W_y s h_t + b_y
    loss, _ = loss_of(logits, tokens[:, 1:])
    states = before, tuple(np.stack(parts) for parts in zip(*after, strict=True))
    return Forward(v, tokens, states, memos, hs, logits, loss)


def backward(net: Network, done: Forward, k: int | None = None) -> Gradients:
    """The gradient of the loss, by BPTT, truncated to `k` steps if given: `forward` read from its end."""
    _, dy = loss_of(done.logits, done.tokens[:, 1:])
    rows = dy.reshape(-1, dy.shape[-1])  # all steps of all captions below each other: (B * T, V)
    top = done.top.reshape(len(rows), -1)
    d_output = {"b_y": rows.sum(0), "W_y": net.s * rows.T @ top}
    d_hs = (net.s * rows @ net.output["W_y"]).reshape(done.top.shape)
    d_layers: list[Weights] = []
    d_before: list[State] = []
    for layer in reversed(range(len(net.layers))):
        nothing = tuple(np.zeros_like(part[layer]) for part in done.states[1])  # no loss after the last step
        # The gradient of a layer's inputs is that of the hidden states of the layer below.
        d_hs, d_state, dw = back_through_time(net.cell, net.layers[layer], done.memos[layer], d_hs, nothing, k)
        d_layers.insert(0, dw)
        d_before.insert(0, d_state)
    d_embeddings = np.zeros_like(net.embeddings)
    np.add.at(d_embeddings, done.tokens[:, :-1], d_hs)  # a word may come many times

    d_inject, d_v = [], np.zeros_like(done.v)
    for part, (w, s, ds) in enumerate(zip(net.inject, done.states[0], zip(*d_before, strict=True), strict=True)):
        slope = 1 - s**2 if net.squashes(part) else 1.0
        da = (np.stack(ds) * slope).transpose(1, 0, 2).reshape(len(d_v), -1)  # (L, B, H) -> (B, L * H)
        d_inject.append({"W_v": da.T @ done.v, "b_v": da.sum(0)})
        d_v += da @ w["W_v"]
    return Gradients(d_layers, d_inject, d_embeddings, d_output, d_v / net.std)


def clip(gradients: list[Array], tau: float) -> list[Array]:
    """g <- g * min(1, tau / ||g||), where g is all gradients as one long vector: shorter, in the same direction."""
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    return [g * min(1.0, tau / norm) for g in gradients]
