"""How many threads torch computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: `with one_thread():`, or `@one_thread()` before a function.

    This is for short work that is done before anybody knows whether other programs keep the processors busy. Threads
    that share some work wait for each other in a spin. Beside busy programs such work then takes many times as long,
    and on a quiet machine more threads hardly make it shorter.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
