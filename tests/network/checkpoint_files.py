"""Checkpoint files, taken apart and put together again with changes."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from captioner.errors import CaptionerError, CheckpointError
from captioner.network.checkpoint import Checkpoint
from captioner.network.matcher import Matcher
from captioner.network.model import CaptionModel, Decoder

Content = dict[str, Any]
Tensors = dict[str, Tensor]
WEIGHT = "decoder.output.weight"


def read_parts(path: Path) -> tuple[Content, Tensors]:
    """The description and the tensors of a checkpoint file, by safetensors alone."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no dict)
        return json.loads(file.metadata()["captioner"]), tensors


def write_parts(path: Path, content: Content | str, tensors: Tensors) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(save(tensors, metadata={"captioner": text}))
    return path


def set_to(part: str, *keys: str, value: Any) -> Callable[[Content, Tensors], None]:
    def change(content: Content, _: Tensors) -> None:
        for key in (inner := [part, *keys])[:-1]:
            content = content[key]
        content[inner[-1]] = value

    return change


def without(*keys: str) -> Callable[[Content, Tensors], None]:
    def change(content: Content, _: Tensors) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def refusal(path: Path, read: Callable[[Path], Any]) -> str:
    """Why `read` refuses a file: what comes after its name, in one line."""
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert isinstance(caught.value, CaptionerError)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400
    return message.removeprefix(f"{path}: ")


def with_words(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    """The same captioner with a decoder of random weights that also reads 3 learned words, 2 names and a manner."""
    sizes = {"words": 3, "names": 2, "links": 4, "word_inputs": True, "manner": True, **changes}
    config = dataclasses.replace(checkpoint.model.config, **sizes)
    torch.manual_seed(3)
    encoder = copy.deepcopy(checkpoint.model.encoder)
    decoder = Decoder(config, encoder.feature_size).eval()
    for weights in decoder.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    decoder.words.tokens.copy_(torch.tensor([6, 7, 9, 9, 4])[-decoder.words.size :])
    decoder.words.links.copy_(torch.tensor([[2, 5, 999, 5], [0, 0, 1, 1]]))
    decoder.words.strange[999] = 1.0
    model = CaptionModel(config, encoder, decoder).eval()
    return Checkpoint(model, checkpoint.vocabulary, checkpoint.preprocess, checkpoint.provenance)


def with_matcher(checkpoint: Checkpoint, size: int = 8) -> Checkpoint:
    """The same captioner with a matcher of random weights."""
    config = dataclasses.replace(checkpoint.model.config, match_size=size)
    torch.manual_seed(4)
    matcher = Matcher(config, checkpoint.model.encoder.feature_size).eval()
    for weights in matcher.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    model = CaptionModel(config, copy.deepcopy(checkpoint.model.encoder), copy.deepcopy(checkpoint.model.decoder))
    model.matcher = matcher
    return dataclasses.replace(checkpoint, model=model.eval())
