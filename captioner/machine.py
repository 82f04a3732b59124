"""What this machine offers: processors, and memory that is kept for reuse."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

_TOO_SHORT = 0.05  # seconds; the kernel counts time in steps of 0.01 s


def available_cpus(root: Path = Path("/sys/fs/cgroup")) -> int:
    """The number of processors that this process may use: its affinity, limited by its container's quota."""
    return max(1, math.ceil(min(len(_affinity()), _quota(root))))


class CpuTimes(NamedTuple):
    """A reading of how long other programs have kept our processors busy, in seconds since the machine started."""

    at: float  # on the monotonic clock
    others: float


def cpu_times(stat: Path = Path("/proc/stat")) -> CpuTimes | None:
    """The reading for now, to be handed to `free_cpus` later; None where the system keeps no such record."""
    try:
        lines = dict(line.split(maxsplit=1) for line in stat.read_text().splitlines() if line.startswith("cpu"))
        counts = [[int(count) for count in lines[f"cpu{cpu}"].split()] for cpu in _affinity()]
        # user, nice, system, idle, iowait, irq, softirq, steal. Niced programs count like all others: between
        # sessions, Linux shares a processor without regard to niceness (autogroups).
        busy = sum(sum(row[:3]) + sum(row[5:8]) for row in counts) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, KeyError):
        return None
    return CpuTimes(time.monotonic(), busy - sum(os.times()[:4]))


def free_cpus(since: CpuTimes | None = None, stat: Path = Path("/proc/stat")) -> int:
    """The number of available processors that other programs do not keep busy; at least 1.

    torch should use no more threads than that: its threads wait for each other in a spin, so a single one that shares
    its processor with another program slows all of them down many times.

        since = cpu_times()  # before something that takes a while anyway, such as reading a checkpoint
        ...
        torch.set_num_threads(min(torch.get_num_threads(), free_cpus(since)))

    What was busy between `since` and now counts, except this process and its finished children. Without `since` the
    call sleeps for 0.2 seconds. All available processors count as free where the system keeps no record, or where the
    time was too short.
    """
    if since is None:
        since = cpu_times(stat)
        time.sleep(0.2)
    now = cpu_times(stat)
    if since is None or now is None or now.at - since.at < _TOO_SHORT:
        return available_cpus()
    busy = round((now.others - since.others) / (now.at - since.at))
    return max(1, min(available_cpus(), len(_affinity()) - busy))


def _affinity() -> set[int]:
    """The numbers of the processors that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _quota(root: Path) -> float:
    """The processors' worth of time that control groups (version 2 or 1) grant; infinite without a limit."""
    try:
        files = [root / "cpu.max"]
        if not files[0].is_file():
            files = [root / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
        quota, period = (int(number) for file in files for number in file.read_text().split())
        return quota / period if quota > 0 else math.inf  # version 1 writes -1 where there is no limit
    except (OSError, ValueError):  # version 2 writes "max" where there is no limit
        return math.inf


@cache
def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep freed memory for the next batch.

    By default malloc returns every large block to the kernel, which has to clear it again for the next layer. Other
    threads do that in arenas of their own, whatever is set, so all threads share the first one's. `python
    benchmarks/encoder.py` measures the gain. It holds for the whole process.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        for name, value in ((-4, 0), (-1, 2**31 - 1), (-8, 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD and M_ARENA_MAX
            ctypes.CDLL(None).mallopt(name, value)


def give_back_freed_memory() -> None:
    """Return to the kernel what `keep_freed_memory` kept: before blocks of other sizes are needed, or before idling."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
