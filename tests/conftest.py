"""Fixtures: a tiny model with random weights and a few generated pictures. No network, no shared data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from captioner.checkpoint import Checkpoint, save_checkpoint
from captioner.images import Preprocess
from captioner.model import CaptionModel, ModelConfig
from captioner.vocab import Vocabulary

TINY_ENCODER = "shufflenet_v2_x0_5"  # the smallest network of torchvision that has a feature vector
TINY_WORDS = "a the dog cat man red blue ball runs sits on in grass snow with and".split()


def make_checkpoint(seed: int = 0, hidden_size: int = 24, spread: float = 0.6) -> Checkpoint:
    """A captioner of random weights; `spread` makes its word probabilities uneven enough to tell options apart."""
    torch.manual_seed(seed)
    vocabulary = Vocabulary.build([" ".join(TINY_WORDS)])
    config = ModelConfig(TINY_ENCODER, len(vocabulary), hidden_size=hidden_size, embedding_size=12, dropout=0.1)
    model = CaptionModel.create(config)
    torch.nn.init.normal_(model.decoder.output.weight, std=spread)
    torch.nn.init.normal_(model.decoder.h0.weight, std=1.0)
    torch.nn.init.normal_(model.decoder.embedding.weight, std=1.0)
    return Checkpoint(model.eval(), vocabulary, Preprocess(size=64), {"note": "random weights, for tests"})


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Checkpoint:
    """A tiny captioner of random weights, in memory. Do not change it."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def tiny_checkpoint_file(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a checkpoint file."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, tiny_checkpoint)
    return path


def draw_picture(index: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A picture that differs from those of other indices in colours and shape."""
    colours = ["crimson", "navy", "gold", "seagreen", "black", "orchid", "white", "gray"]
    image = Image.new("RGB", size, colours[index % 8])
    draw = ImageDraw.Draw(image)
    x, y = 7 * index % (size[0] // 2), 5 * index % (size[1] // 2)
    shape = draw.ellipse if index % 2 else draw.rectangle
    shape((x, y, x + size[0] // 3, y + size[1] // 3), fill=colours[(index // 8 + index + 3) % 8])
    return image


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Seven different JPEG files in a folder of their own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = [folder / f"picture{index}.jpg" for index in range(7)]
    for index, path in enumerate(paths):
        draw_picture(index).save(path)
    return paths
