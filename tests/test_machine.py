"""Processors that may be used, and those of them that are free."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captioner.machine import available_cpus, cpu_times, free_cpus


@pytest.fixture
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def groups(folder: Path, files: dict[str, str]) -> Path:
    """A folder of control groups with these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    return folder


@pytest.mark.usefixtures("eight_processors")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu.max": "what?"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
    ],
    ids=str,
)
def test_a_containers_quota_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert available_cpus(groups(tmp_path, files)) == expected


def test_processors_that_the_process_is_not_bound_to_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert available_cpus(tmp_path) == 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cpus(tmp_path) == 6


class FakeMachine:
    """A machine of four processors with a clock, our own processor time, and a /proc/stat, all set by hand.

    In /proc/stat a processor's row is: user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stat = folder / "stat"
        self.rows = [[1000 * (cpu + 1)] * 10 for cpu in range(4)]
        self.clock, self.own = 100.0, 7.0
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
        monkeypatch.setattr(os, "times", lambda: (self.own / 2, self.own / 4, self.own / 8, self.own / 8, self.clock))
        monkeypatch.setattr(os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name], raising=False)
        monkeypatch.setattr(time, "monotonic", lambda: self.clock)
        self.write()

    def write(self) -> None:
        rows = [["cpu", *map(sum, zip(*self.rows, strict=True))], *([f"cpu{n}", *r] for n, r in enumerate(self.rows))]
        text = "".join(" ".join(map(str, row)) + "\n" for row in rows)
        self.stat.write_text(text + "intr 118 0 0\nctxt 94\nbtime 1700000000\n")

    def later(self, seconds: float, busy: dict[int, dict[int, float]], own: float = 0.0) -> None:
        """Let time pass in which processor `cpu` was busy for busy[cpu][column] seconds, and we for `own`."""
        self.clock += seconds
        self.own += own
        for cpu, columns in busy.items():
            for column, share in columns.items():
                self.rows[cpu][column] += round(100 * share)
        self.write()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    return FakeMachine(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("busy", "own", "expected"),
    [
        ({}, 0.0, 4),
        ({0: {3: 2.0}, 1: {4: 2.0}}, 0.0, 4),  # idle, or waiting for a disk
        ({0: {0: 2.0}}, 0.0, 3),
        ({0: {1: 2.0}}, 0.0, 3),  # niced
        ({0: {2: 1.0, 5: 0.2, 6: 0.4, 7: 0.4}}, 0.0, 3),  # system, interrupts, and what other guests of the host took
        ({0: {0: 2.0, 8: 2.0}}, 0.0, 3),  # guests of ours count as user already
        ({0: {0: 2.0}, 1: {0: 2.0}, 3: {0: 2.0}}, 0.0, 1),
        ({cpu: {0: 2.0} for cpu in range(4)}, 0.0, 1),  # never none
        ({0: {0: 0.5}, 1: {0: 0.4}}, 0.0, 4),  # less than half a processor
        ({0: {0: 0.6}, 1: {0: 0.6}}, 0.0, 3),
        ({0: {0: 2.0}, 1: {0: 2.0}}, 2.0, 3),  # one of them was ours
        ({cpu: {0: 2.0} for cpu in range(4)}, 8.0, 4),  # all were
    ],
    ids=str,
)
def test_processors_that_other_programs_keep_busy_are_not_free(
    machine: FakeMachine, busy: dict[int, dict[int, float]], own: float, expected: int
) -> None:
    since = cpu_times(machine.stat)
    machine.later(2.0, busy, own)
    assert free_cpus(since, machine.stat) == expected


def test_only_processors_that_we_are_bound_to_are_looked_at(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2})
    since = cpu_times(machine.stat)
    machine.later(2.0, {0: {0: 2.0}, 3: {0: 2.0}})
    assert free_cpus(since, machine.stat) == 2
    machine.later(2.0, {0: {0: 2.0}, 1: {0: 4.0}})
    assert free_cpus(since, machine.stat) == 1


def test_a_containers_quota_is_the_most_that_can_be_free(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.machine.available_cpus", lambda: 2)
    since = cpu_times(machine.stat)
    machine.later(2.0, {0: {0: 2.0}})
    assert free_cpus(since, machine.stat) == 2  # of three
    machine.later(2.0, {cpu: {0: 4.0} for cpu in range(4)})
    assert free_cpus(since, machine.stat) == 1


def test_without_a_first_reading_a_short_sleep_is_judged(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: machine.later(seconds, {0: {0: seconds}, 1: {0: seconds}}))
    assert free_cpus(stat=machine.stat) == 2


def test_all_processors_count_as_free_where_nothing_can_be_told(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = cpu_times(machine.stat)
    machine.later(0.01, {0: {0: 0.01}, 1: {0: 0.01}})
    assert free_cpus(since, machine.stat) == 4  # too soon
    monkeypatch.setattr(time, "sleep", lambda seconds: machine.later(seconds, {}))
    for text in ("", "cpu  1 2 3\n", "cpu0 what?\ncpu1 1\ncpu2 1\ncpu3 1\n"):
        machine.write = lambda text=text: machine.stat.write_text(text)  # type: ignore[method-assign]
        machine.write()
        assert cpu_times(machine.stat) is None
        assert free_cpus(since, machine.stat) == free_cpus(stat=machine.stat) == 4
    assert free_cpus(since, machine.stat.with_name("none")) == 4  # macOS, Windows


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux")
@pytest.mark.parametrize("niceness", [0, 10])
def test_real_busy_programs_are_seen_and_our_own_work_is_not(niceness: int) -> None:
    def work(seconds: float) -> tuple[float, float]:
        """The shares of the processor's time that went to others and to us while we worked."""
        first, before = cpu_times(), time.process_time()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        last = cpu_times()
        assert first
        assert last
        passed = last.at - first.at
        return (last.others - first.others) / passed, (time.process_time() - before) / passed

    bound = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(bound)})  # the busy programs inherit it
    program = f"import os\nos.nice({niceness})\nwhile True: pass"
    try:
        others, own = work(1.0)
        assert others + own < 1.1  # a processor has no more to give: what we took is not counted twice
        busy = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
        try:
            time.sleep(0.3)
            others, own = work(1.0)
        finally:
            for process in busy:
                process.kill()
                process.wait()
    finally:
        os.sched_setaffinity(0, bound)
    assert others + own < 1.1
    assert others > (0.5 if niceness == 0 else 0.05)  # two of three, or what the weights of niceness leave them
