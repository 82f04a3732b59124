"""Fixtures: a tiny model, and servers of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from captioner.inference.captioner import Captioner
from captioner.inference.torch_engine import captioner_of
from captioner.network.checkpoint import Checkpoint
from server.running import Running, Start, running


@pytest.fixture(scope="session")
def model(tiny_checkpoint: Checkpoint) -> Captioner:
    """A tiny model, in memory."""
    return captioner_of(tiny_checkpoint)


@pytest.fixture
def start(model: Captioner) -> Iterator[Start]:
    """Starts servers that end with the test."""
    with ExitStack() as servers:
        yield lambda *args, **given: servers.enter_context(running(given.pop("model", model), *args, **given))


@pytest.fixture(scope="module")
def server(model: Captioner) -> Iterator[Running]:
    """A server with all defaults, which the tests of a module share."""
    with running(model) as found:
        yield found
