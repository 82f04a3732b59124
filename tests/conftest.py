"""Fixtures: a tiny model with random weights and a few generated pictures. No network, no shared data."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import os
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from captioner.cli.main import main
from captioner.network.checkpoint import Checkpoint, save_checkpoint
from captioner.network.encoder import as_batch, normalise
from captioner.network.matcher import Matcher
from captioner.network.model import CaptionModel, ModelConfig
from captioner.network.preprocess import Preprocess
from captioner.vocab import END, Vocabulary

# Without the extras, as in `make test-lowest`.
collect_ignore = [] if find_spec("ray") else ["bulk/test_cluster.py", "bulk/test_shards.py", "bulk/test_sources.py"]
if not find_spec("fastapi"):
    collect_ignore += ["server", "cli/test_serve.py"]

TINY_ENCODER = "shufflenet_v2_x0_5"  # the smallest network of torchvision that has a feature vector
TINY_WORDS = ("a", "the", "dog", "cat", "man", "red", "blue", "ball", "runs", "sits", "on", "in", "grass", "snow")
CHINESE = "一只狗在草地上跑"


def make_checkpoint(
    seed: int = 0, hidden_size: int = 24, spread: float = 1.0, tokens: str = "word", end: float = 1.0
) -> Checkpoint:
    """A captioner of random weights; `spread` makes its word probabilities uneven enough to tell options apart.

    With `tokens="character"` it writes the characters of CHINESE. The larger `end`, the shorter its captions.
    """
    torch.manual_seed(seed)
    vocabulary = Vocabulary.build([" ".join(TINY_WORDS) if tokens == "word" else CHINESE], tokens=tokens)
    config = ModelConfig(TINY_ENCODER, len(vocabulary), hidden_size, 12, 0.1, "lstm", 1)
    model = CaptionModel.create(config)
    torch.nn.init.normal_(model.decoder.output.weight, std=spread)
    torch.nn.init.normal_(model.decoder.embedding.weight, std=1.0)
    model.decoder.output.bias.data[END] = end  # so that some captions end before the length limit, others not
    # A random encoder gives nearly the same feature for every picture; blow the differences up to states of
    # about unit variance.
    preprocess = Preprocess(size=64)
    with torch.inference_mode():
        pixels = as_batch(preprocess.pixels(draw_picture(index)) for index in range(8))
        features = model.encoder(normalise(preprocess, pixels))
        for layer in (model.decoder.h0, model.decoder.c0):
            layer.weight.copy_(torch.randn(layer.weight.shape) / (features.std(0).norm() + 1e-12))
            layer.bias.copy_(-layer.weight @ features.mean(0))
    return Checkpoint(model.eval(), vocabulary, preprocess, {"note": "random weights, for tests"})


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the long tests last: see `make fuzz` and `make soak`."""
    parser.addoption("--mutants", type=int, default=500, help="pictures that the fuzz test changes [500]")
    parser.addoption("--library", type=int, default=140, help="pictures of the library that lives through days [140]")
    parser.addoption("--kills", type=int, default=10, help="times that the kill tests kill [10]")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of the tests' own, also for the commands that they start."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CAPTIONER_CACHE"] = str(folder)
    return folder


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


@pytest.fixture(scope="session")
def finder_checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny captioner whose matcher, of random weights, tells the pictures of `draw_picture` apart."""
    checkpoint = make_checkpoint()
    checkpoint.model.config = replace(checkpoint.model.config, match_size=16)
    checkpoint.model.matcher = Matcher(checkpoint.model.config, checkpoint.model.encoder.feature_size)
    preprocess = checkpoint.preprocess
    pixels = as_batch(preprocess.pixels(draw_picture(index)) for index in range(32))
    with torch.inference_mode():  # not with `standardise`: the features of random encoders hardly differ
        std, mean = torch.std_mean(checkpoint.model.encoder(normalise(preprocess, pixels)), 0)
    checkpoint.model.decoder.feature_mean.copy_(mean)
    checkpoint.model.decoder.feature_std.copy_(std.clamp(min=std.mean() / 10))
    path = tmp_path_factory.mktemp("checkpoint") / "finder.safetensors"
    save_checkpoint(path, checkpoint)
    return path


@pytest.fixture(scope="session")
def chinese_checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny captioner that writes Chinese, character by character."""
    path = tmp_path_factory.mktemp("checkpoint") / "chinese.safetensors"
    save_checkpoint(path, make_checkpoint(tokens="character", end=-2.0))
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
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line inside this process, to save imports: exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit:  # argparse's way to refuse
            status = int(exit.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def forkserver() -> multiprocessing.context.ForkServerContext:
    """Starts processes that can be killed, from one that has imported what takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["captioner.inference.captioner", "captioner.bulk.formats", "captioner.training.run"]
    )
    return context


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Seven different JPEG files in a folder of their own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = [folder / f"picture{index}.jpg" for index in range(7)]
    for index, path in enumerate(paths):
        draw_picture(index).save(path)
    return paths
