"""The peak memory of this process.

On Linux `getrusage` is of no use for that: a child inherits the peak of the process that started it through vfork, so a
large parent hides what the child takes. VmHWM in /proc/self/status begins anew with each program.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def forget_peak() -> None:
    """Let the peak begin at what is held now, where the system can do that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    if STATUS.is_file():
        [line] = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
