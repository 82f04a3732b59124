"""How far a long job is: a bar where stderr is a terminal, a line now and then where it is a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from captioner.errors import counted

if TYPE_CHECKING:  # it takes long to import, and most logs and short jobs do without
    from tqdm import tqdm

T = TypeVar("T")
SECONDS = 25.0  # between two lines of a log


class LogLines:
    """A line every SECONDS that says what is done, how far it is and how long it will still take; none if `hidden`.

    It has the methods of tqdm that are used here. A thread writes, so that lines come also during a long step.
    """

    def __init__(self, total: int | None, title: str, unit: str, done: int, hidden: bool = False) -> None:
        self._total, self._title, self._unit, self._before, self._done = total, title, unit, done, done
        self._began, self._closed = time.monotonic(), threading.Event()
        if not hidden:
            threading.Thread(target=self._write, daemon=True).start()

    def __enter__(self) -> LogLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, number: int = 1) -> None:
        """So many more are done."""
        self._done += number

    def set_postfix(self, **_: object) -> None:
        """A log does without."""

    def close(self) -> None:
        """Write no more lines."""
        self._closed.set()

    def line(self) -> str:
        """How far the job is now."""
        what, done = f"{self._title}: " if self._title else "", self._done - self._before
        if self._total is None:
            return f"{what}{counted(self._done, self._unit)} so far"
        seconds = (time.monotonic() - self._began) * (self._total - self._done) / max(1, done)
        left = f", about {duration(seconds)} left" if done else ""
        return f"{what}{self._done:,} of {counted(self._total, self._unit)}{left}"

    def _write(self) -> None:
        while not self._closed.wait(SECONDS):
            with suppress(OSError, ValueError):  # nobody reads the log any more
                print(f"captioner: {self.line()}", file=sys.stderr, flush=True)


def progress_bar(total: int | None, title: str, unit: str, done: int = 0, hidden: bool = False) -> tqdm[Any] | LogLines:
    """Something with `update` and `close` that shows how many of `total` units are done; None where nobody knows it."""
    if sys.stderr.isatty() and not hidden:
        from tqdm import tqdm

        return tqdm(total=total, initial=done, desc=title, unit=f" {unit}s", leave=False)
    return LogLines(total, title, unit, done, hidden)


def write(line: str) -> None:
    """Print a line on stderr. A bar that is there moves out of its way."""
    if "tqdm" not in sys.modules:
        print(line, file=sys.stderr)
    else:
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)


def watched(items: Iterable[T], total: int | None = None, unit: str = "picture") -> Iterator[T]:
    """The same items, whose number is shown while they pass."""
    with progress_bar(total, "", unit) as bar:
        for item in items:
            yield item
            bar.update()


def duration(seconds: float) -> str:
    """A time in words, as exact as an estimate is."""
    for unit, size in (("s", 1), ("min", 60)):
        if seconds < 90 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"
