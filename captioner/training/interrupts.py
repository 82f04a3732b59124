"""Ctrl-C, and the SIGTERM by which clusters take machines away, put off until a step is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Within the block a first Ctrl-C or SIGTERM only makes the function given return True: no step is cut in two.

    A second one interrupts at once. Outside the main thread, where there are no signals, it never does.
    """
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True
        give_back()

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        give_back()
