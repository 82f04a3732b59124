"""The benchmark of scaling: its cost model, and that it runs."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "scaling.py"


def test_the_plan_follows_from_the_cost_of_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    benchmark = runpy.run_path(str(BENCHMARK))
    costs = {"read and decode": 4.0, "encode": 5.0, "generate, greedy": 99.0, "generate, beam 3": 1.0}
    assert benchmark["a_picture"](costs) == 10.0
    # Ten milliseconds a picture are 100 pictures a second on each of 160 cores: 1.6 million every 100 seconds.
    plan = benchmark["plan"](1.6e6, 10, 10.0)
    assert plan["hours"] * 3600 == pytest.approx(100)
    assert plan["core-hours"] * 3600 == pytest.approx(16_000)
    assert plan["read, Gbit/s in all"] == pytest.approx(16_000 * 60e3 * 8 / 1e9)
    assert plan["money: computing"] == pytest.approx(16_000 / 3600 * 0.04)
    assert plan["requests, one per picture"] == pytest.approx(0.64)
    assert plan["requests, shards of 2,000"] == pytest.approx(0.64 / 2000)


@pytest.mark.slow
def test_it_prints_its_tables() -> None:
    command = [sys.executable, str(BENCHMARK), "--only", "captioning", "--pictures", "32", "--rounds", "1"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    parts, prediction, plan = printed.strip().split("\n\n")
    assert "| encode | " in parts
    assert prediction.splitlines()[2].startswith("| 1 | ")
    assert len(plan.splitlines()) == 2 + 6
