"""Fixtures of training: a small set, first weights, and a machine that is as busy in all runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY_ENCODER

from captioner.data.shapes import make_shapes
from captioner.network.encoder import Encoder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, Path]:
    return make_shapes(tmp_path_factory.mktemp("shapes"), 60)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torchvision state dict of random weights for the tiny encoder."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(Encoder(TINY_ENCODER).backbone.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def weights_with_classes(tiny_weights: Path) -> Path:
    """The same with a classifier of ImageNet's classes, as torchvision publishes it."""
    encoder = Encoder(TINY_ENCODER)
    state = torch.load(tiny_weights, weights_only=True)
    state["fc.weight"], state["fc.bias"] = torch.randn(1000, encoder.feature_size), torch.zeros(1000)
    path = tiny_weights.with_name("classes.pth")
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captions of photographs that are not there, from two sources: 20 photographs of the one, 50 of the other."""
    lines = []
    for number in range(70):
        thing, colour = ("dog", "ball", "cat")[number % 3], ("red", "blue", "green", "white")[number % 4]
        captions = [f"a {colour} {thing}", f"a {thing} with a {colour} ball on the beach"][: 1 + number % 2]
        lines.append(json.dumps({"captions": captions, "source": "short" if number < 20 else "long"}))
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One feature cache for all tests, away from that of the person who runs them."""
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path_factory.getbasetemp() / "feature-cache"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """The same number of threads in all runs, however busy this machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captioner.training.start.free_cpus", lambda since: 1)
        yield
