"""Going on from a captioner that exists, with the words of other captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.model import CaptionModel, ModelConfig
from captioner.options import TrainConfig
from captioner.vocab import UNK, Vocabulary

FIXED = ("encoder", "image_size", "tokens", "cell", "layers", "hidden_size", "embedding_size", "tie_embeddings")


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
        variational_dropout=config.variational_dropout,
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
    for name in ("embedding.weight", "output.weight", "output.bias", "output_bias"):
        key = "decoder." + name
        if key in state:
            rows = state[key]
            more = rows[UNK].expand(words - len(rows), *rows.shape[1:])
            # Alike in all but a little, so that the words can grow apart.
            state[key] = torch.cat([rows, more + 0.01 * rows.std() * torch.randn(more.shape)])
    return state
