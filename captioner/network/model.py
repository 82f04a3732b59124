"""The network: an encoder turns the picture into a feature, a recurrent decoder turns the feature into words.

Nothing here knows about files or text.
Shapes: B batch, T tokens, V vocabulary, F feature, H hidden, L layers, S image side.

The picture's feature initialises the state ("init-inject" of Tanti et al. 2018, "Where to put the image in an
image caption generator"), after Vinyals et al. 2015, "Show and Tell", who fed it as the first input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captioner.network.config import ModelConfig as ModelConfig
from captioner.network.encoder import Encoder
from captioner.network.kernels import Dropout
from captioner.network.matcher import Matcher
from captioner.network.recurrent import RecurrentLayer, State, has_memory
from captioner.network.words import WordPredictor


class Decoder(nn.Module):
    """A language model of captions, conditioned on a picture through its initial state.

    For the standardised feature v, h_0 = tanh(W_v v + b_v), with weights of its own for each layer. Where the cell has
    a memory, c_0 is another such function, without the tanh if `config.linear_memory`. With `config.word_inputs`, the
    square roots of the word predictor's probabilities are appended to v (Wu et al. 2016, "What value do explicit high
    level concepts have in vision to language problems?"; a root lets small ones count). Of a thing that no training
    picture shows, the feature says what it resembles, and the words know better, so v is multiplied by 1 - g, where g
    is the picture's strangeness (see `WordPredictor`). With `config.manner`, g is also an input of its own: 0 asks for
    the manner of speaking of the captions of training pictures, 1 for that of captions without pictures, which speak of
    other things. The recurrent layers read the words so far, and layer l reads the hidden states of layer l - 1. The
    logits over the vocabulary are a linear function of the last layer's hidden states, which are multiplied by
    `config.hidden_scale` first.
    A state is a tuple of tensors (L, B, H): (h, c), or (h,) where the cell has no memory.
    """

    def __init__(self, config: ModelConfig, feature_size: int) -> None:
        super().__init__()
        self.config = config
        layers, hidden, embedding = config.layers, config.hidden_size, config.embedding_size
        self.feature_mean: Tensor
        self.feature_std: Tensor
        self.register_buffer("feature_mean", torch.zeros(feature_size))
        self.register_buffer("feature_std", torch.ones(feature_size))
        self.words = WordPredictor(config, feature_size)
        known = feature_size + config.word_inputs * self.words.size + config.manner
        self.h0 = nn.Linear(known, layers * hidden)
        if has_memory(config.cell):
            self.c0 = nn.Linear(known, layers * hidden)
        self.embedding = nn.Embedding(config.vocabulary_size, embedding)
        self.recurrent = nn.ModuleList(
            RecurrentLayer(config.cell, embedding if layer == 0 else hidden, hidden) for layer in range(layers)
        )
        self.output = nn.Linear(hidden, config.vocabulary_size)
        self.dropout = Dropout(config.dropout)
        # Nothing else is known about a picture, so fewer of the features are dropped (docs/experiments.md).
        self.feature_dropout = Dropout(config.dropout / 2)

    def standardise(self, features: Tensor) -> None:
        """Set mean and standard deviation of each feature to those of training pictures, (N, F).

        Features come out of a ReLU and an average, so they are positive and much the same for all pictures. Once they
        are centred and scaled, the differences between pictures are learned much faster.
        """
        std, mean = torch.std_mean(features.float(), dim=0)
        self.feature_mean.copy_(mean)
        # A feature that hardly varies is noise and must not be scaled up.
        self.feature_std.copy_(std.clamp(min=0.05 * float(std.mean()) + 1e-4))

    def standardised(self, features: Tensor) -> Tensor:
        """Features (B, F), each with mean 0 and deviation 1 over the training pictures."""
        return (features - self.feature_mean) / self.feature_std

    def init_state(self, features: Tensor, words: Tensor | None = None, manner: Tensor | None = None) -> State:
        """Features (B, F) -> the state before the first word.

        In training, `words` (B, W) and `manner` (B, 1) are given in place of the predictor's probabilities and of the
        strangeness.
        """
        known = self.standardised(features)
        if self.config.word_inputs:
            # Words are trained by their own labels only, not by what the decoder makes of them.
            words = self.words(features).detach() if words is None else words
            strangeness = self.words.strangeness(features)
            known = torch.cat([known * (1.0 - strangeness), words.sqrt()], 1)
        known = self.feature_dropout(known)
        if self.config.manner:
            known = torch.cat([known, strangeness if manner is None else manner], 1)
        injected = [torch.tanh(self.h0(known))]
        if has_memory(self.config.cell):
            memory = self.c0(known)
            injected.append(memory if self.config.linear_memory else torch.tanh(memory))
        # (B, L * H) -> (L, B, H)
        return tuple(part.unflatten(1, (self.config.layers, -1)).transpose(0, 1).contiguous() for part in injected)

    def zero_state(self, batch: int) -> State:
        """A state without a picture, with which the decoder is a plain language model."""
        zeros = self.feature_mean.new_zeros(self.config.layers, batch, self.config.hidden_size)
        return (zeros, zeros) if has_memory(self.config.cell) else (zeros,)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token of each caption, (B,) int64; return the logits of the next one (B, V) and the new state."""
        hidden, state = self.read(tokens.unsqueeze(1), state)
        return self.logits(hidden.squeeze(1)), state

    def forward(
        self, features: Tensor, tokens: Tensor, words: Tensor | None = None, manner: Tensor | None = None
    ) -> Tensor:
        """Teacher forcing: (B, F) and (B, T) int64 -> logits (B, T, V) of the token that follows each.

        `words` and `manner` as in `init_state`.
        """
        hidden, _ = self.read(tokens, self.init_state(features, words, manner))
        return self.logits(hidden)

    def read(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens (B, T); return the last layer's hidden states after each of them (B, T, H) and the new state."""
        hidden = self.dropout(self.embedding(tokens))
        after = []
        for layer, recurrent in enumerate(self.recurrent):
            hidden, own = recurrent(hidden, tuple(part[layer : layer + 1] for part in state))
            hidden = self.dropout(hidden)
            after.append(own)
        return hidden, tuple(torch.cat(parts) for parts in zip(*after, strict=True))

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., H) -> logits (..., V)."""
        # As rows: for states of several steps in another order in memory, torch adds the bias on its own.
        rows: Tensor = self.output((hidden * self.config.hidden_scale).reshape(-1, hidden.shape[-1]))
        return rows.view(*hidden.shape[:-1], rows.shape[-1])


class CaptionModel(nn.Module):
    """Encoder, decoder and, where it has one, matcher together, as a checkpoint stores them."""

    def __init__(self, config: ModelConfig, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.decoder = decoder
        self.matcher = Matcher(config, encoder.feature_size) if config.match_size else None

    @classmethod
    def create(cls, config: ModelConfig) -> CaptionModel:
        """A model with random weights from torch's global generator."""
        encoder = Encoder(config.encoder)
        return cls(config, encoder, Decoder(config, encoder.feature_size))
