"""Pictures that come together are encoded together, and get what they would get alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import draw_picture
from numpy.typing import NDArray

from captioner.errors import CheckpointError
from captioner.inference.captioner import Captioner
from captioner.inference.results import Caption
from captioner.inference.torch_engine import captioner_of
from captioner.network.checkpoint import Checkpoint
from captioner.options import DecodeOptions
from captioner.server.batches import Batches, Captions, Scores

PLAIN = Captions(DecodeOptions())
FOR_EVER = 3600.0  # seconds: what waits so long does not end within the test's limit


@pytest.fixture
def model(tiny_checkpoint: Checkpoint) -> Captioner:
    """A tiny model with a single thread for batches."""
    model = captioner_of(tiny_checkpoint)
    model.network.workers = 1
    return model


@pytest.fixture
def sizes() -> list[int]:
    """The sizes of batches, as they come."""
    return []


@pytest.fixture
def batches(model: Captioner, sizes: list[int]) -> Iterator[Batches]:
    """Batches of two, which wait for a second picture as long as one is coming."""
    batches = Batches(model, FOR_EVER, size=2, seen=sizes.append)
    yield batches
    batches.coming(-100)
    batches.close()


def pixels(model: Captioner, index: int) -> NDArray[np.uint8]:
    return model.prepare(draw_picture(index))


def test_a_picture_that_comes_alone_does_not_wait(model: Captioner, batches: Batches, sizes: list[int]) -> None:
    assert batches.submit(pixels(model, 0), PLAIN).result(120).text == model.caption(draw_picture(0)).text
    assert sizes == [1]


def test_a_picture_waits_for_one_that_is_being_read(model: Captioner, batches: Batches, sizes: list[int]) -> None:
    batches.coming(1)
    first = batches.submit(pixels(model, 0), PLAIN)
    second = batches.submit(pixels(model, 1), PLAIN)
    assert {first.result(120).text, second.result(120).text} == {model.caption(draw_picture(i)).text for i in (0, 1)}
    assert sizes == [2]


def test_it_does_not_wait_longer_than_told(model: Captioner, sizes: list[int]) -> None:
    batches = Batches(model, 0.001, size=2, seen=sizes.append)
    batches.coming(1)
    batches.submit(pixels(model, 0), PLAIN).result(120)
    assert sizes == [1]
    batches.close()


def test_together_equals_alone_with_mixed_options(model: Captioner) -> None:
    writers = [
        PLAIN,
        Captions(DecodeOptions("greedy")),
        Captions(DecodeOptions("sample", seed=3)),
        Captions(DecodeOptions(), "a dog"),
    ]
    batches = Batches(model, 0.05)
    with ThreadPoolExecutor(12) as pool:
        jobs = [(index, writers[index % 4]) for index in range(24)]
        answers = list(pool.map(lambda job: batches.submit(pixels(model, job[0]), job[1]).result(120), jobs))
    batches.close()
    for (index, writer), answer in zip(jobs, answers, strict=True):
        alone: Caption = model.caption(draw_picture(index), writer.options, prompt=writer.prompt)
        assert answer.text == alone.text
        assert answer.logprob == pytest.approx(alone.logprob, abs=1e-3)


def test_scores_are_those_of_rank(model: Captioner, batches: Batches) -> None:
    sentences = ("a dog runs", "the unicorn", "a cat sits on snow")
    [answer] = [batches.submit(pixels(model, 5), Scores(sentences)).result(120)]
    assert [caption.text for caption in answer] == [caption.text for caption in model.rank(draw_picture(5), sentences)]
    assert model.rank(draw_picture(5), []) == []


def test_a_writer_that_fails_fails_alone(model: Captioner, batches: Batches) -> None:
    batches.coming(1)
    wrong = batches.submit(pixels(model, 0), Captions(DecodeOptions(), "unicorn"))
    right = batches.submit(pixels(model, 1), PLAIN)
    with pytest.raises(Exception, match="unicorn"):
        wrong.result(120)
    assert right.result(120).text == model.caption(draw_picture(1)).text


def test_an_encoder_that_fails_fails_the_batch_and_not_the_thread(
    model: Captioner, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise CheckpointError("damaged")

    with monkeypatch.context() as patch:
        patch.setattr(model.network, "encode", broken)
        with pytest.raises(CheckpointError, match="damaged"):
            batches.submit(pixels(model, 0), PLAIN).result(120)
    assert batches.submit(pixels(model, 0), PLAIN).result(120).text


def test_close_answers_what_is_in_the_queue(model: Captioner) -> None:
    threads = torch.get_num_threads()
    batches = Batches(model, 0.0, size=2)
    answers = [batches.submit(pixels(model, index), PLAIN) for index in range(9)]
    batches.close()
    assert all(answer.done() and answer.result().text for answer in answers)
    assert torch.get_num_threads() == threads


def test_an_answer_that_nobody_waits_for_is_left_out(model: Captioner, batches: Batches, sizes: list[int]) -> None:
    batches.coming(1)
    first = batches.submit(pixels(model, 0), PLAIN)
    while not first.running():  # its thread now waits for a second picture
        time.sleep(0.001)
    unwanted = batches.submit(pixels(model, 1), PLAIN)
    if unwanted.cancel():  # otherwise the thread was quicker
        batches.submit(pixels(model, 2), PLAIN)
    assert first.result(120).text
    assert sizes == [2]
