"""Work on several threads, with results in the order of the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from captioner.machine import available_cpus

T = TypeVar("T")


R = TypeVar("R")


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """`work` of each item, in the items' order; up to `ahead` of them are on their way at a time."""
    remaining = iter(items)
    waiting: deque[Future[R]] = deque()
    try:
        for item in remaining:
            waiting.append(pool.submit(work, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # nobody waits for the rest any more
        for future in waiting:
            future.cancel()


def readers() -> int:
    """Threads that read pictures."""
    return min(8, available_cpus())


def prefetched(
    pool: ThreadPoolExecutor, read: Callable[[T], R], batches: Iterable[Sequence[T]]
) -> Iterator[list[tuple[T, Future[R]]]]:
    """Batches of sources, each with its picture being read; two further batches are always on their way."""
    remaining = iter(batches)
    waiting: deque[list[tuple[T, Future[R]]]] = deque()
    while True:
        for batch in islice(remaining, 3 - len(waiting)):
            waiting.append([(source, pool.submit(read, source)) for source in batch])
        if not waiting:
            return
        yield waiting.popleft()


def in_batches(sources: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    """Sources, `batch_size` at a time."""
    remaining = iter(sources)
    return iter(lambda: list(islice(remaining, batch_size)), [])
