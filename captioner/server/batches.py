"""Pictures of requests that come together are encoded together."""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from captioner.inference.captioner import Captioner, Features
from captioner.inference.parallel import BATCH_SIZE
from captioner.inference.results import Caption
from captioner.machine import give_back_freed_memory
from captioner.options import DecodeOptions

# From features (N, F) to N answers. Pictures whose writers are equal are written together.
Writer: TypeAlias = "Callable[[Captioner, Features], Sequence[Any]]"
_IDLE = 30.0  # seconds without work, after which memory is given back


@dataclass(frozen=True)
class Captions:
    """Writes the captions of pictures, with these options."""

    options: DecodeOptions
    prompt: str = ""

    def __call__(self, model: Captioner, features: Features) -> list[Caption]:
        """Features (N, F) to N captions."""
        return model.caption_features(features, self.options, prompt=self.prompt)


@dataclass(frozen=True)
class Scores:
    """Rates these sentences for pictures."""

    sentences: tuple[str, ...]

    def __call__(self, model: Captioner, features: Features) -> list[list[Caption]]:
        """Features (N, F) to N lists of the sentences, the most likely first."""
        return model.rank_features(features, self.sentences)


@dataclass
class _Job:
    pixels: NDArray[np.uint8]  # (S, S, 3)
    writer: Writer
    answer: Future[Any]


class Batches:
    """A queue of pictures, and the threads that work on it. Threads may share it.

    A thread takes what waits, up to `size` pictures. Only while more pictures are being read (`coming`) does it wait
    for them, for `wait` seconds at most, so a request that comes alone does not wait. `seen` is told the size of each
    batch.
    """

    def __init__(
        self, model: Captioner, wait: float, size: int = BATCH_SIZE, seen: Callable[[int], object] = lambda size: None
    ) -> None:
        self._model, self._wait, self._size, self._seen = model, wait, size, seen
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._coming, self._lock = 0, threading.Lock()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(model.network.workers)]
        for thread in self._threads:
            thread.start()

    def coming(self, pictures: int) -> None:
        """Say that so many more pictures are being read; a negative number: that so many have been."""
        with self._lock:
            self._coming += pictures

    def submit(self, pixels: NDArray[np.uint8], writer: Writer) -> Future[Any]:
        """Put a picture, (S, S, 3), into the queue. The future gives what `writer` makes of it, or its error."""
        job = _Job(pixels, writer, Future())
        self._jobs.put(job)
        return job.answer

    def close(self) -> None:
        """Answer what is in the queue, and end the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._model.network.work_together()

    def _work(self) -> None:
        self._model.network.work_alone()
        while jobs := self._next():
            self._seen(len(jobs))
            try:
                self._answer(jobs)
            except Exception as error:  # of the encoder, which all share
                _fail(jobs, error)

    def _next(self) -> list[_Job]:
        """The next batch; empty at the end."""
        try:
            job = self._jobs.get(timeout=_IDLE)
        except queue.Empty:
            give_back_freed_memory()
            job = self._jobs.get()
        batch: list[_Job] = []
        until = time.monotonic() + self._wait
        while job is not None:
            if job.answer.set_running_or_notify_cancel():
                batch.append(job)
            if len(batch) == self._size:
                return batch
            left = until - time.monotonic()
            try:
                job = self._jobs.get(timeout=left) if self._coming and left > 0 else self._jobs.get_nowait()
            except queue.Empty:
                return batch or self._next()
        if batch:
            self._jobs.put(None)  # the end, for after this batch
        return batch

    def _answer(self, jobs: list[_Job]) -> None:
        features = self._model.encode_pixels(np.stack([job.pixels for job in jobs]))
        rows: dict[Writer, list[int]] = defaultdict(list)
        for row, job in enumerate(jobs):
            rows[job.writer].append(row)
        for writer, own in rows.items():
            try:
                answers = writer(self._model, features[own])
            except Exception as error:
                _fail((jobs[row] for row in own), error)
            else:
                for row, answer in zip(own, answers, strict=True):
                    jobs[row].answer.set_result(answer)


def _fail(jobs: Iterable[_Job], error: Exception) -> None:
    for job in jobs:
        if not job.answer.done():
            job.answer.set_exception(error)
