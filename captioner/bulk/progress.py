"""How a run goes, on stderr: a bar, failures by name, a summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from captioner.inference.results import Row


class Progress:
    """A bar on stderr where that is a terminal, failures as they come, a summary. `total` None: nobody knows."""

    def __init__(self, total: int | None, quiet: bool) -> None:
        self.quiet, self.failed, self.done, self.started = quiet, 0, 0, time.monotonic()
        self.total = total
        # None: only where stderr is a terminal
        self.bar = tqdm(total=total, unit=" pictures", disable=True if quiet else None, leave=False, smoothing=0.1)

    def skip(self, number: int) -> None:
        """Count pictures that an earlier run captioned."""
        self.bar.update(number)
        if number and not self.quiet:
            self.say(f"captioner: {number} of {self.total} pictures were captioned before")

    def watch(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Pass rows on, naming the pictures that failed."""
        for row in rows:
            if "error" in row:
                self.failed += 1
                self.say(f"captioner: {row['error']}")
            self.done += 1
            self.bar.update()
            yield row

    def say(self, line: str) -> None:
        """A line on stderr that does not tear the bar."""
        self.bar.write(line, file=sys.stderr)

    def finish(self) -> int:
        """Print the summary; the exit status."""
        self.bar.close()
        seconds = time.monotonic() - self.started
        if not self.quiet and (self.total != 1 or self.failed):
            print(
                f"captioner: {self.done - self.failed} captioned, {self.failed} failed, "
                f"{seconds:.0f} s ({self.done / max(seconds, 1e-9):.0f} pictures/s)",
                file=sys.stderr,
            )
        return 1 if self.failed else 0
