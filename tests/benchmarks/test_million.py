"""Captioning very many pictures, with few of them: resumed runs end as whole ones, and memory does not grow."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "million.py"


@pytest.fixture(scope="module")
def million() -> ModuleType:
    spec = importlib.util.spec_from_file_location("million", BENCHMARK)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("format", ["text", "jsonl", "csv", "coco", "html", "sidecar", "xmp"])
def test_a_run_that_was_killed_is_resumed_to_the_same_bytes(million: ModuleType, tmp_path: Path, format: str) -> None:
    number = 1100 if format == "html" else 300  # so that there are two pages
    found = dict(million.measure(number, format, tmp_path, with_weights=False))
    assert (found["whole"]["captioned"], found["whole"]["skipped"]) == (number, 0)
    assert 0 <= number * 9 // 10 - found["resumed"]["skipped"] < 32  # whole batches
    assert found["resumed"]["captioned"] == number - found["resumed"]["skipped"]
    assert "again" not in found or found["again"]["kept"] == number
    assert found["whole"]["bytes"] > 10_000


@pytest.mark.slow
def test_a_run_that_ends_with_its_first_caption_goes_on_after_a_kill(million: ModuleType, tmp_path: Path) -> None:
    found = dict(million.measure(300, "csv", tmp_path, with_weights=False, starts=True))
    assert list(found) == ["started", "restarted"]
    assert all(run["start"] > 0 for run in found.values())
    assert 240 < (tmp_path / "captions.csv.journal").read_text().count('"caption"') < 300


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of a child is not known elsewhere")
@pytest.mark.parametrize("format", ["csv", "sidecar"])
def test_memory_does_not_grow_with_the_number_of_pictures(million: ModuleType, tmp_path: Path, format: str) -> None:
    """Lists and dicts of paths, rows or digests take more than 100 bytes a picture each."""
    peaks = []
    for number in (2000, 20_000):
        folder, output = tmp_path / str(number), tmp_path / f"{number}.csv"
        million.make_pictures(folder / "pictures", number)
        place = str(output) if format == "csv" else ""
        command = [sys.executable, BENCHMARK, "--one", "whole", folder / "pictures", place, format, str(number), "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(json.loads(done.stdout)["peak"])
    assert peaks[1] - peaks[0] < 18_000 * 200
