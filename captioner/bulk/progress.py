"""How a run is going, on stderr: a bar, the pictures that failed, and a summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from captioner.errors import counted, one_line
from captioner.inference.progress import progress_bar, write

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.results import Row


@dataclass
class Summary:
    """What a run did, in numbers of pictures."""

    captioned: int = 0
    failed: int = 0
    skipped: int = 0  # because the run that this one resumed had captioned them
    seconds: float = 0.0
    kept: int = 0  # because the output had their captions already, or the input of a cluster
    unsure: int = 0  # of those captioned: marked, or left without a sentence
    moved: int = 0  # because the output had their captions, where they were before


class Progress:
    """A bar or lines (see `inference.progress`), a line for each picture that failed, and a summary at the end.

    With `quiet` there is neither bar nor summary. `say` takes the lines instead of stderr, for example `list.append`.
    """

    def __init__(self, quiet: bool = False, say: Callable[[str], object] | None = None) -> None:
        self.quiet = quiet
        self.say = say or write
        self._count_anew()
        # Whether the caption of a picture is that of the run which this one resumes.
        self.earlier: Callable[[str], bool] = lambda path: False

    def _count_anew(self) -> None:
        self._summary, self._done = Summary(), 0
        self._given = 0  # of those done: with captions that they had
        self._unreadable = set[str]()  # pictures that failed, so that none counts twice

    def keep(self, kept: int, total: int) -> Summary:
        """Say that some of all pictures have captions that stay. Returns what a run did that ends here."""
        self._summary.kept = kept
        if kept:
            have = "has" if kept == 1 else "have"
            self.note(f"{kept:,} of {counted(total, 'picture')} {have} captions already: kept")
        return replace(self._summary)  # the run may go on, or the next one have the same Progress

    def move(self, moved: int, only_said: bool) -> None:
        """Say that the captions of some pictures went with them to other paths, or would go."""
        self._summary.moved = moved
        if moved:
            whose, them = ("its caption", "it") if moved == 1 else ("their captions", "them")
            self.note(f"{moved:,} moved: {whose} {'would go' if only_said else 'went'} with {them}")

    def note(self, text: str) -> None:
        """Say something, unless it should be quiet."""
        if not self.quiet:
            self.say(f"captioner: {text}")

    def fail(self, reason: str) -> None:
        """Name a picture that failed."""
        self._summary.failed += 1
        self.say(f"captioner: {one_line(reason)}")

    def fail_to_write(self, path: str, reason: str) -> None:
        """Name a picture whose caption could not be written. It counts as failed once, and not as captioned."""
        self.say(f"captioner: {one_line(reason)}")
        if path in self._unreadable:
            return
        self._summary.failed += 1
        if self.earlier(path):
            self._summary.skipped -= 1
        else:
            self._summary.captioned -= 1

    def begin(self, total: int | None, skipped: int = 0) -> None:
        """Start the clock. `total` is None where nobody knows it; `skipped` pictures have captions already."""
        self._total, self._summary.skipped, self._started = total, skipped, time.monotonic()
        self._bar = progress_bar(total, "", "picture", skipped, hidden=self.quiet)
        if skipped:
            self.note(f"captioned before: {skipped:,} {'pictures' if total is None else f'of {total:,} pictures'}")

    def watch(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Pass rows on, count them, and name the pictures that failed."""
        return chain.from_iterable(self.watch_batches([row] for row in rows))

    def watch_batches(self, batches: Iterable[list[Row]]) -> Iterator[list[Row]]:
        """Like `watch`, for several rows at a time."""
        with self._bar:  # which ends also when the run is stopped
            for rows in batches:
                for row in rows:
                    if "error" in row:
                        self.fail(row["error"])
                        self._unreadable.add(row["path"])
                    elif row.get("given"):
                        self._given += 1
                    else:
                        self._summary.captioned += 1
                    self._summary.unsure += bool(row.get("unsure"))
                    self._done += 1
                    self._bar.update()
                yield rows

    def finish(self, done: str = "captioned") -> Summary:
        """Remove the bar and print the summary, unless there was one picture, for which it was `done`."""
        self._bar.close()
        found = self._summary
        found.seconds = time.monotonic() - self._started
        if self._total != 1 or found.failed or found.unsure:
            pace = f"{found.seconds:.0f} s ({self._done / max(found.seconds, 1e-9):,.0f} pictures/s)"
            unsure = f", {found.unsure:,} of them unsure" if found.unsure else ""
            given = f"{self._given:,} had a caption, " if self._given else ""
            self.note(f"{found.captioned:,} {done}{unsure}, {given}{found.failed:,} failed, {pace}")
        found.kept += self._given
        self._count_anew()  # an index is looked through again and again
        return found
