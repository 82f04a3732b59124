"""The network before the first step: a new one, or a captioner that exists, with the words of other captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captioner.files import sha256_of
from captioner.network.checkpoint import Checkpoint, load_checkpoint
from captioner.network.model import CaptionModel, ModelConfig
from captioner.network.preprocess import Preprocess
from captioner.training.config import TrainConfig
from captioner.training.encoder_weights import load_encoder_weights
from captioner.vocab import UNK, Vocabulary, fitting_tokens

FIXED = ("encoder", "image_size", "tokens", "cell", "layers", "hidden_size", "embedding_size")


@dataclasses.dataclass(frozen=True)
class Start:
    """Where the first weights come from.

    `encoder_weights` is a torchvision state dict or one of our checkpoints, None for torchvision's download; `init`
    is a checkpoint whose decoder, encoder and vocabulary training goes on from, and which fixes the network.
    """

    encoder_weights: Path | None = None
    init: Path | None = None


def first_model(
    config: TrainConfig, texts: Sequence[Sequence[str]], start: Start
) -> tuple[TrainConfig, CaptionModel, Vocabulary, Preprocess, dict[str, Any]]:
    """The network before the first step, with the config that describes it and where its weights came from."""
    captions = [text for those in texts for text in those]
    if start.init:
        checkpoint, config = warm_start(config, captions, start.init)
        source = {"source": f"checkpoint {start.init.name}", "sha256": sha256_of(start.init)}
        origin = {"encoder_weights": source, "init": {**source, "provenance": checkpoint.provenance}}
        return config, checkpoint.model, checkpoint.vocabulary, checkpoint.preprocess, origin
    tokens = fitting_tokens(captions) if config.tokens == "auto" else config.tokens
    vocabulary = Vocabulary.build(captions, config.minimum_count, tokens)
    names = [f.name for f in dataclasses.fields(ModelConfig) if f.name != "vocabulary_size"]
    model = CaptionModel.create(
        ModelConfig(vocabulary_size=len(vocabulary), **{name: getattr(config, name) for name in names})
    )
    source, preprocess = load_encoder_weights(model.encoder, config.encoder, start.encoder_weights)
    if config.image_size:
        preprocess = dataclasses.replace(preprocess, size=config.image_size)
    config = dataclasses.replace(config, image_size=preprocess.size)
    return config, model, vocabulary, preprocess, {"encoder_weights": source}


def warm_start(config: TrainConfig, captions: Sequence[str], path: Path) -> tuple[Checkpoint, TrainConfig]:
    """The captioner in `path` with the new words of `captions` in its vocabulary, and the config that fits it.

    Everything in FIXED is as in the checkpoint. A new word begins as what it was before, `<unk>`.
    Raises CheckpointError.
    """
    checkpoint = load_checkpoint(path)
    vocabulary = checkpoint.vocabulary
    new = Vocabulary.build(captions, config.minimum_count, vocabulary.tokens)
    known = set(vocabulary.words)
    words = vocabulary.words + tuple(word for word in new.words if word not in known)
    extended = Vocabulary(words, vocabulary.tokens)
    old = checkpoint.model.config
    model_config = dataclasses.replace(
        old,
        vocabulary_size=len(words),
        dropout=config.dropout,
    )
    model = CaptionModel.create(model_config)
    model.load_state_dict(_extended(checkpoint.model, len(words)))
    fixed = {field.name: getattr(old, field.name) for field in dataclasses.fields(ModelConfig)} | {
        "image_size": checkpoint.preprocess.size,
        "tokens": vocabulary.tokens,
    }
    config = dataclasses.replace(config, **{name: fixed[name] for name in FIXED})
    return Checkpoint(model, extended, checkpoint.preprocess, checkpoint.provenance), config


def _extended(model: CaptionModel, words: int) -> dict[str, Tensor]:
    """The state dict with as many rows for words, further ones like that of `<unk>`."""
    state = model.state_dict()
    for name in ("embedding.weight", "output.weight", "output.bias"):
        rows = state["decoder." + name]
        more = rows[UNK].expand(words - len(rows), *rows.shape[1:])
        # Alike in all but a little, so that the words can grow apart.
        state["decoder." + name] = torch.cat([rows, more + 0.01 * rows.std() * torch.randn(more.shape)])
    return state
