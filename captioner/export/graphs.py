"""The decoder as two graphs: `start` turns a picture's feature into the state, `step` reads one token of each caption.

They compute what `network/model.py`, `network/words.py` and `inference/trust.py` do; tests compare them.
Shapes: B pictures, R rows, F feature, H hidden, L layers, V vocabulary, W predicted words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from captioner.export.weights import Array, Graph
from captioner.network.checkpoint import stored
from captioner.network.model import Decoder
from captioner.network.recurrent import has_memory
from captioner.network.words import DOUBT

_OPERATORS = {"lstm": "LSTM", "peephole": "LSTM", "gru": "GRU", "rnn": "RNN", "rnn-relu": "RNN"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "gru": {"linear_before_reset": 1},
    "rnn": {"activations": ["Tanh"]},
    "rnn-relu": {"activations": ["Relu"]},
}
# In which order ONNX has the parts of torch's weights: the gates i, f, c, o of an LSTM and r, z, n of a GRU.
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
_PEEPHOLES = (0, 2, 1)  # p_i, p_f, p_o


class _DecoderGraph(Graph):
    """A graph with the weights of a decoder."""

    def __init__(self, decoder: Decoder, bits: int) -> None:
        super().__init__()
        self._bits, self.config = bits, decoder.config
        tensors = stored(decoder) if bits == 8 else decoder.state_dict()
        self.arrays: dict[str, Array] = {name: tensor.numpy() for name, tensor in tensors.items()}

    def matrix(self, name: str, order: tuple[int, ...] = (0,), lead: bool = False) -> str:
        """A matrix (N, M) of the decoder, whose rows come in parts in `order`. With `lead` it is (1, N, M)."""
        values, scale = self.arrays[name], self.arrays.get(f"{name}.scale")
        values = in_order(values.astype(np.float16) if self._bits == 16 else values, order)
        scale = None if scale is None else in_order(scale, order)
        if lead:
            values, scale = values[None], None if scale is None else scale[None]
        return self.weight(name, values, scale)

    def linear(self, layer: str, x: str, to: str = "") -> str:
        """The linear layer called `layer`."""
        bias = self.constant(self.arrays[f"{layer}.bias"])
        return self.op("Gemm", x, self.matrix(f"{layer}.weight"), bias, transB=1, to=to)


def in_order(rows: Array, order: tuple[int, ...]) -> Array:
    """Rows (N, ...) cut into as many parts as `order` has places, in this order."""
    parts = np.split(rows, len(order))
    return np.concatenate([parts[place] for place in order])


def start_graph(decoder: Decoder, bits: int) -> onnx.ModelProto:
    """`features` (B, F) -> `h` and `c` (L, B, H), `evidence` (B, V), `words` (B, W) and `kind` (B, 3).

    There is a `c` where the cell has a memory, and `evidence` and `words` where there is a word predictor. `kind` is
    what familiarity depends on.
    """
    graph, config = _DecoderGraph(decoder, bits), decoder.config
    mean, std = graph.arrays["feature_mean"], graph.arrays["feature_std"]
    standard = graph.op("Div", graph.op("Sub", "features", graph.constant(mean)), graph.constant(std))
    words = config.words + config.names
    classes = graph.op("Softmax", graph.linear("words.classifier", "features"), axis=-1) if config.names else ""
    if words:
        _words(graph, classes)
        _evidence(graph)
    known = standard
    if config.word_inputs:
        strangeness = _strangeness(graph, standard, classes)
        ordinary = graph.op("Mul", known, graph.op("Sub", graph.constant(1.0), strangeness))
        parts = [ordinary, graph.op("Sqrt", "words"), *([strangeness] if config.manner else [])]
        known = graph.op("Concat", *parts, axis=1)
    _state(graph, graph.op("Tanh", graph.linear("h0", known)), "h")
    if has_memory(config.cell):
        memory = graph.linear("c0", known)
        _state(graph, memory if config.linear_memory else graph.op("Tanh", memory), "c")
    _kind(graph, standard, len(mean))
    outputs = {
        **dict.fromkeys(state_names(config.cell), (config.layers, "B", config.hidden_size)),
        **({"evidence": ("B", config.vocabulary_size), "words": ("B", words)} if words else {}),
        "kind": ("B", 3),
    }
    return graph.model("start", {"features": ("B", len(mean))}, outputs)


def state_names(cell: str) -> tuple[str, ...]:
    """The parts of a cell's state."""
    return ("h", "c") if has_memory(cell) else ("h",)


def _words(graph: _DecoderGraph, classes: str) -> None:
    """The probabilities of predicted words, `words`, as `WordPredictor.forward` has them."""
    config, parts = graph.config, []
    if config.words:
        parts.append(graph.op("Sigmoid", graph.linear("words.learned", "features")))
    if config.names:
        of_link, name = graph.arrays["words.links"]
        # Each name adds up its classes: a product with a matrix of zeros and ones.
        ones = graph.op("OneHot", graph.constant(name), graph.constant(config.names), graph.constant([0.0, 1.0]))
        sums = graph.op("MatMul", graph.op("Gather", classes, graph.constant(of_link), axis=1), ones)
        parts.append(graph.op("Min", sums, graph.constant(1.0)))
    graph.op("Concat", *parts, axis=1, to="words")


def _evidence(graph: _DecoderGraph) -> None:
    """How far pictures speak for each word of the vocabulary, `evidence`, as `WordPredictor.evidence` has it."""
    tokens, rates = graph.arrays["words.tokens"], graph.arrays["words.rates"].astype(np.float32)
    # A token may stand for several predicted words. Round by round, each token looks at another one of them. Tokens
    # without one look at the zero that is added at the end.
    rounds: list[Array] = []
    for place, token in enumerate(tokens.tolist()):
        looking = next((places for places in rounds if places[token] == len(tokens)), None)
        if looking is None:
            rounds.append(looking := np.full(len(rates), len(tokens)))
        looking[token] = place
    padded = graph.op("Pad", "words", graph.constant([0, 0, 0, 1]))
    found = [graph.op("Gather", padded, graph.constant(places), axis=1) for places in rounds]
    unseen = np.where(np.isin(np.arange(len(rates)), tokens), 0.0, rates)
    likely = graph.op("Max", *found, graph.constant(unseen))
    shifted = graph.op("Add", likely, graph.constant(DOUBT))
    graph.op("Log", graph.op("Div", shifted, graph.constant(1.0 + DOUBT)), to="evidence")


def _strangeness(graph: _DecoderGraph, standard: str, classes: str) -> str:
    """How strange pictures are, (B, 1), as `WordPredictor.strangeness` has it."""
    if not graph.config.names:  # a zero for each picture
        return graph.op("Mul", graph.op("ReduceMean", standard, graph.constant([1])), graph.constant(0.0))
    probability = graph.op("MatMul", classes, graph.constant(graph.arrays["words.strange"][:, None]))
    share = graph.op("Div", graph.op("Sub", probability, graph.constant(0.2)), graph.constant(0.6))
    return graph.op("Clip", share, graph.constant(0.0), graph.constant(1.0))


def _state(graph: _DecoderGraph, flat: str, to: str) -> None:
    """(B, L * H) -> (L, B, H)"""
    shape = graph.constant([-1, graph.config.layers, graph.config.hidden_size])
    graph.op("Transpose", graph.op("Reshape", flat, shape), perm=[1, 0, 2], to=to)


def _kind(graph: _DecoderGraph, standard: str, size: int) -> None:
    """What familiarity depends on, `kind`, as `inference.trust.feature_inputs` has it."""
    row, root = graph.constant([1]), graph.constant(size**0.5)
    lengths = [standard, graph.op("Min", standard, graph.constant(0.0))]
    parts = [graph.op("Div", graph.op("ReduceL2", part, row), root) for part in lengths]
    graph.op("Concat", *parts, graph.op("ReduceMean", standard, row), axis=1, to="kind")


def step_graph(decoder: Decoder, bits: int) -> onnx.ModelProto:
    """`tokens` (R,), `h` and `c` (L, R, H) -> `logits` (R, V), `h_next` and `c_next` (L, R, H)."""
    graph, config = _DecoderGraph(decoder, bits), decoder.config
    state = state_names(config.cell)
    time = graph.constant([0])  # the axis of time, which has one step, and of layers
    befores = [_layers_of(graph, part) for part in state]
    afters: list[list[str]] = [[] for _ in state]
    hidden = graph.op("Unsqueeze", graph.op("Gather", graph.matrix("embedding.weight"), "tokens"), time)
    for layer in range(config.layers):
        hidden, *_ = after = _recurrent(graph, layer, hidden, [before[layer] for before in befores])
        for part, all_layers in zip(after, afters, strict=True):
            all_layers.append(part)
    for part, all_layers in zip(state, afters, strict=True):
        graph.op("Concat", *all_layers, axis=0, to=f"{part}_next")
    scaled = graph.op("Mul", graph.op("Squeeze", hidden, time), graph.constant(config.hidden_scale))
    graph.linear("output", scaled, to="logits")
    sides = (config.layers, "R", config.hidden_size)
    outputs = {"logits": ("R", config.vocabulary_size), **{f"{part}_next": sides for part in state}}
    return graph.model("step", {"tokens": ("R",), **dict.fromkeys(state, sides)}, outputs)


def _layers_of(graph: _DecoderGraph, part: str) -> list[str]:
    """A part of the state, (L, R, H), as one (1, R, H) for each layer."""
    layers = graph.config.layers
    if layers == 1:
        return [part]
    names = [f"{part}_{layer}" for layer in range(layers)]
    graph.several("Split", part, to=names, axis=0, num_outputs=layers)
    return names


def _recurrent(graph: _DecoderGraph, layer: int, x: str, before: list[str]) -> list[str]:
    """One layer, by ONNX's own operator: (1, R, D) and its state (1, R, H) -> its new state."""
    config, name = graph.config, f"recurrent.{layer}.cell"
    kind, size = _OPERATORS[config.cell], config.hidden_size
    order = _GATES[kind]
    peephole = config.cell == "peephole"
    names = ("inputs.weight", "hidden.weight") if peephole else ("weight_ih_l0", "weight_hh_l0")
    weights = [graph.matrix(f"{name}.{part}", order, lead=True) for part in names]
    biases = [f"{name}.inputs.bias"] if peephole else [f"{name}.bias_ih_l0", f"{name}.bias_hh_l0"]
    parts = [in_order(graph.arrays[bias].astype(np.float32), order) for bias in biases]
    bias = np.concatenate(parts if len(parts) == 2 else [*parts, np.zeros_like(parts[0])])
    inputs = [x, *weights, graph.constant(bias[None]), "", *before]
    if peephole:  # three vectors, but a checkpoint stores them as a matrix
        inputs.append(graph.op("Reshape", graph.matrix(f"{name}.peepholes", _PEEPHOLES), graph.constant([1, -1])))
    after = [f"{part}_after_{layer}" for part in state_names(config.cell)]
    graph.several(kind, *inputs, to=["", *after], hidden_size=size, **_OPTIONS.get(config.cell, {}))
    return after
