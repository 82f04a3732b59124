"""Work on several threads, with results in the order of the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

BATCH_SIZE = 32  # pictures that are encoded together
T = TypeVar("T")
R = TypeVar("R")


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """The results of `work` for each item, in the order of the items. At most `ahead` items are in work at a time.

    An error that `work` raises comes out in the place of its result. What has not been begun by then is cancelled.
    """
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def in_batches(items: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    """Lists of `batch_size` items; the last may be shorter."""
    remaining = iter(items)
    return iter(lambda: list(islice(remaining, batch_size)), [])
