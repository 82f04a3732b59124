"""The benchmark runs, and captioning a folder is much faster than a plain loop over the same checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "speed.py"


@pytest.mark.slow
def test_a_folder_is_captioned_several_times_as_fast_as_by_a_plain_loop(tmp_path: Path) -> None:
    """The benchmark's own bar is 6 times; here is room for a noisy machine, on which both take turns."""
    ratios = tmp_path / "ratios.json"
    subprocess.run(
        [sys.executable, BENCHMARK, "--only", "folder", "--rounds", "7", "--pictures", "128", "--json", ratios],
        check=True,
        timeout=800,
    )
    assert json.loads(ratios.read_text())["folder"] >= 4.0
