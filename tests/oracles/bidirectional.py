"""A bidirectional recurrent network that reads one sentence, and its gradients, in NumPy float64.

y_t = [h→_t ; h←_t], z = max_t y_t, v = W_y z + b_y, and the vector of the sentence is v / |v|. One sentence at a time:
there is no padding here, so a batch that was padded must come to the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from oracles import cells
from oracles.cells import Array, Weights


@dataclass
class Reader:
    """Weights, or their gradients."""

    embeddings: Array  # (V, E)
    directions: list[Weights]  # that which reads forwards, and that which reads backwards
    output: Weights


def read(net: Reader, tokens: list[int]) -> tuple[Array, Any]:
    """The unit vector of a sentence, (D,), and a memo."""
    xs = net.embeddings[None, tokens]  # (1, T, E)
    ys, memos = [], []
    for weights, order in zip(net.directions, (1, -1), strict=True):
        zeros = np.zeros((1, weights["W_hi"].shape[0]))
        hs, _, memo = cells.run(cells.LSTM(), weights, xs[:, ::order], (zeros, zeros))
        ys.append(hs[0, ::order])  # place t again
        memos.append(memo)
    y = np.concatenate(ys, 1)  # (T, 2H)
    z = y.max(0)
    v = net.output["W_y"] @ z + net.output["b_y"]
    return v / np.linalg.norm(v), (tokens, memos, y, z, v)


def back(net: Reader, memo: Any, d_unit: Array) -> Reader:
    """From the gradient with respect to the unit vector to those of all weights."""
    tokens, memos, y, z, v = memo
    length = np.linalg.norm(v)
    unit = v / length
    dv = (d_unit - unit * (unit @ d_unit)) / length  # what would only make v longer does not count
    dz = net.output["W_y"].T @ dv
    dy = np.zeros_like(y)
    dy[y.argmax(0), np.arange(len(z))] = dz  # a maximum sends its gradient to the place where it was found
    found, d_embeddings, half = [], np.zeros_like(net.embeddings), y.shape[1] // 2
    for weights, memo_of, order, part in zip(net.directions, memos, (1, -1), (dy[:, :half], dy[:, half:]), strict=True):
        zeros = np.zeros((1, half))
        dxs, _, dw = cells.back_through_time(cells.LSTM(), weights, memo_of, part[None, ::order], (zeros, zeros))
        np.add.at(d_embeddings, tokens, dxs[0, ::order])
        found.append(dw)
    return Reader(d_embeddings, found, {"W_y": np.outer(dv, z), "b_y": dv})
