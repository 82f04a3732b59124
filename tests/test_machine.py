"""No more threads than processors may be used, and work that comes back in its order."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import captioner
from captioner.inference.parallel import in_order
from captioner.machine import available_cpus


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


def test_results_come_in_the_order_of_their_items() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0.0)
        return item * 10

    with ThreadPoolExecutor(3) as pool:
        assert list(in_order(pool, work, range(20), 4)) == [item * 10 for item in range(20)]
        assert list(in_order(pool, work, [], 4)) == []


def test_no_more_than_asked_for_is_taken_ahead_and_what_nobody_waits_for_is_not_begun() -> None:
    taken, begun, gate = 0, [], threading.Event()

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    def work(item: int) -> int:
        begun.append(item)
        if item > 1:
            gate.wait(10)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, endless(), 4)  # type: ignore[arg-type]  # an endless one of numbers
        assert next(results) == 1
        assert taken == 4
        results.close()  # type: ignore[attr-defined]  # it is a generator
        gate.set()
    assert len(begun) <= 2


def test_an_error_comes_out_where_its_result_would() -> None:
    def work(item: int) -> float:
        return 1 / item

    with ThreadPoolExecutor(2) as pool:
        results = in_order(pool, work, [1, 2, 0, 4], 3)
        assert [next(results), next(results)] == [1.0, 0.5]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_a_stream_that_is_stopped_early_gives_torch_its_threads_back(
    tiny_checkpoint_file: Path, pictures: list[Path]
) -> None:
    model = captioner.load(tiny_checkpoint_file, precision="float32")
    before = torch.get_num_threads()
    stream = model.caption_files(pictures, batch_size=1)
    next(stream)
    stream.close()
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before
