"""Sentences and pictures as vectors in one space, by a checkpoint's matcher: `load_reader`. Nothing here needs torch.

Reading a sentence takes a few small products of matrices. NumPy does them in a few milliseconds, and starts ten times
as fast as torch, so that a query of a finished index is answered at once. `network/matcher.py` is the same network for
training, and tests compare the two.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from captioner.errors import CheckpointError
from captioner.network.config import ModelConfig
from captioner.network.header import MATCHER, find_checkpoint, is_exported, opened, read_header, read_weights
from captioner.vocab import UNK, Vocabulary

Array: TypeAlias = NDArray[np.float32]
_CELL = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


@dataclass(frozen=True)
class Reader:
    """The matcher of a checkpoint.

    Shapes: N sentences or pictures, T tokens, E embedding, F feature, H hidden, D size of the space.
    """

    vocabulary: Vocabulary
    weights: dict[str, Array]  # by their names in the checkpoint, without "matcher."
    mean: Array  # (F,)
    std: Array  # (F,)

    @property
    def size(self) -> int:
        """D"""
        return len(self.weights["projection.bias"])

    def sentences(self, texts: Sequence[str]) -> Array:
        """Sentences to unit vectors, (N, D).

        Unknown words are left out. A text without a word that is known is read as one unknown word.
        """
        known = ([token for token in self.vocabulary.encode(text) if token != UNK] for text in texts)
        found = [self._read(tokens or [UNK]) for tokens in known]
        return _unit(np.array(found, dtype=np.float32).reshape(len(texts), self.size))

    def pictures(self, features: Array) -> Array:
        """Features (N, F), as `Captioner.encode` gives them, to unit vectors (N, D)."""
        known = self._standardised(features)
        return _unit(known @ self.weights["projection.weight"].T + self.weights["projection.bias"])

    def alike(self, features: Array) -> Array:
        """Features (N, F), standardised and scaled to unit length: products of them tell near-duplicates."""
        return _unit(self._standardised(features))

    def unknown(self, text: str) -> tuple[str, ...]:
        """The words of a text that the model does not know."""
        words = self.vocabulary.tokenise(text)
        return tuple(dict.fromkeys(word for word in words if word not in self.vocabulary.ids))

    def _standardised(self, features: Array) -> Array:
        return np.asarray((np.asarray(features, dtype=np.float32) - self.mean) / self.std, dtype=np.float32)

    def _read(self, tokens: list[int]) -> Array:
        """The tokens of one sentence to a vector (D,) of any length."""
        words = self.weights["sentences.embedding.weight"][tokens]  # (T, E)
        after, before = self._states("forwards", words), self._states("backwards", words[::-1])[::-1]
        pooled = np.concatenate([after, before], 1).max(0)
        read: Array = self.weights["sentences.output.weight"] @ pooled + self.weights["sentences.output.bias"]
        return read

    def _states(self, direction: str, words: Array) -> Array:
        """The hidden states (T, H) of an LSTM after each of the words (T, E)."""
        w_x, w_h, b_x, b_h = (self.weights[f"sentences.{direction}.cell.{name}"] for name in _CELL)
        from_words = words @ w_x.T + b_x + b_h  # (T, 4H)
        hidden = memory = np.zeros(w_h.shape[1], dtype=np.float32)
        states = []
        for gates in from_words:
            i, f, g, o = np.split(gates + w_h @ hidden, 4)
            memory = _sigmoid(f) * memory + _sigmoid(i) * np.tanh(g)
            hidden = _sigmoid(o) * np.tanh(memory)
            states.append(hidden)
        return np.array(states)


def load_reader(path: str | os.PathLike[str] | None = None) -> Reader:
    """The matcher of a checkpoint, which is named as for `captioner.load`.

    Raises CheckpointError when the file is missing or damaged, or has no matcher.
    """
    file = find_checkpoint(path)
    if is_exported(file):
        if not read_header(file).config.match_size:
            raise CheckpointError(f"{file.parent}: has no matcher, so it cannot find pictures by a sentence")
        file = file.with_name(MATCHER)
    with opened(file, "numpy") as (content, header):
        if not header.config.match_size:
            how = "train one with `captioner train --init CHECKPOINT --epochs 0 --finetune-epochs 0 --scst-epochs 0`"
            raise CheckpointError(f"has no matcher, so it cannot find pictures by a sentence: {how}")
        mean, std = (read_weights(content, f"decoder.feature_{name}", None) for name in ("mean", "std"))
        shapes = _shapes(header.config, mean.size)
        weights = {name: read_weights(content, f"matcher.{name}", shape) for name, shape in shapes.items()}
    return Reader(header.vocabulary, weights, mean, std)


def _shapes(config: ModelConfig, features: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a matcher's weights by their names."""
    hidden, size = config.match_hidden, config.match_size
    cell = ((4 * hidden, config.embedding_size), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
    cells = product(("forwards", "backwards"), zip(_CELL, cell, strict=True))
    return {
        "sentences.embedding.weight": (config.vocabulary_size, config.embedding_size),
        **{f"sentences.{direction}.cell.{name}": shape for direction, (name, shape) in cells},
        "sentences.output.weight": (size, 2 * hidden),
        "sentences.output.bias": (size,),
        "projection.weight": (size, features),
        "projection.bias": (size,),
    }


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x), dtype=np.float32)


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)
