"""The figures of docs/recurrent-networks.md: each is computed from what it says, on sizes that take no time."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import make_checkpoint
from PIL import Image

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def plots() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recurrent_plots", ROOT / "docs" / "recurrent_plots.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their own up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small networks only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_only_the_key_tells_the_last_word(plots: ModuleType) -> None:
    sentences = plots.recall_sentences(200, 5, torch.Generator().manual_seed(0))
    assert sentences.shape == (200, 7)
    assert torch.equal(sentences[:, 0], sentences[:, -1])
    assert set(sentences[:, 0].tolist()) == set(plots.KEYS)
    assert set(sentences[:, 1:5].flatten().tolist()) == set(plots.NOISE)
    assert bool((sentences[:, 5] == plots.QUESTION).all())


def test_the_gradient_of_an_rnn_fades_faster_than_an_lstm_s(plots: ModuleType) -> None:
    sentences = plots.recall_sentences(16, 30, torch.Generator().manual_seed(0))
    rnn, lstm = (plots.gradient_norms(plots.small_decoder(cell), sentences) for cell in ("rnn", "lstm"))
    assert len(rnn) == len(lstm) == 31
    assert rnn[0] == lstm[0] == 1
    assert rnn[30] < 0.1 * lstm[30]


def test_the_gradient_stops_where_it_is_cut(plots: ModuleType) -> None:
    sentences = plots.recall_sentences(4, 5, torch.Generator().manual_seed(0))
    for k, seen in ((5, False), (6, True), (None, True)):
        decoder = plots.small_decoder("gru")
        plots.recall_loss(decoder, sentences, k).backward()
        assert bool(decoder.embedding.weight.grad[sentences[:, 0]].any()) == seen
    losses = {plots.recall_loss(plots.small_decoder("gru"), sentences, k).item() for k in (1, 3, None)}
    assert max(losses) - min(losses) < 1e-6  # the numbers go on all the same


def test_a_network_learns_to_recall(plots: ModuleType) -> None:
    _, losses = plots.train_to_recall("gru", 2, 80)
    assert losses[0] > plots.CHANCE
    assert losses[-1] < 0.1


def test_clipping_keeps_training_within_bounds(plots: ModuleType) -> None:
    losses, norms = plots.train_by_plain_descent(0.1, 1.0, 10)
    assert len(losses) == len(norms) == 10
    assert norms[0] > 1  # before clipping
    assert max(losses) < 10
    unbounded, _ = plots.train_by_plain_descent(0.1, None, 10)
    assert not unbounded[-1] < 1e6
    assert len(unbounded) < 10


def test_a_high_temperature_draws_more_words(plots: ModuleType) -> None:
    checkpoint = make_checkpoint()
    cool, hot = (plots.draw(checkpoint, temperature, 20) for temperature in (0.05, 2.0))
    assert len(cool.captions) == len(hot.captions) == 20
    assert cool.distinct_words < hot.distinct_words


def test_next_words_stand_in_order_and_can_be_written(plots: ModuleType) -> None:
    checkpoint = make_checkpoint()
    words, logits = plots.next_words(checkpoint, "a dog")
    assert len(words) == 10
    assert logits.tolist() == sorted(logits.tolist(), reverse=True)
    assert logits.isneginf().sum() == 3
    assert not {"<pad>", "<start>", "<unk>"} & set(words)


def test_smoothing(plots: ModuleType) -> None:
    assert plots.smooth([1.0, 3.0, 5.0, 7.0], 2) == [1, 2, 4, 6]
    assert math.isclose(plots.smooth([2.0], 20)[0], 2)


def test_the_figures_are_there_and_small(plots: ModuleType) -> None:
    page = (ROOT / "docs" / "recurrent-networks.md").read_text(encoding="utf-8")
    for name in plots.FIGURES:
        assert f"(images/{name}.png)" in page
        path = ROOT / "docs" / "images" / f"{name}.png"
        assert path.stat().st_size < 60_000
        with Image.open(path) as image:
            assert image.width > 2 * image.height
