"""How many processors we may use, and how a stream of work is spread over them."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def available_cpus(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process may keep busy: those it is bound to, and no more than its container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(bound, _quota(root))))


def _quota(root: Path) -> float:
    """Processors' worth of time that control groups grant, of version 2 or 1; infinite without a limit."""
    try:
        if (root / "cpu.max").is_file():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        # No limit is "max" in version 2, -1 in version 1.
        return math.inf if quota == "max" or int(quota) < 1 else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


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
