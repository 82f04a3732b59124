"""Filling the index with made-up features, few of them: all are found without a model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def million_index(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("million_index", BENCHMARKS / "million_index.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_pictures_with_made_up_features_are_found_without_a_model(million_index: ModuleType, tmp_path: Path) -> None:
    folder, file = tmp_path / "pictures", tmp_path / "index" / "made-up.sqlite"
    million_index.make_pictures(folder, 100)
    million_index.settle(tmp_path)
    done = [number for number, *_ in million_index.fill(folder, file, 100, steps=2)]
    assert done == [64, 100]
    found = million_index.search(folder, file)
    assert len(found["lines"]) == 3
    assert all(line.startswith(f"{folder}/") for line in found["lines"])
    content = file.read_bytes(), sorted(path.name for path in file.parent.iterdir())
    million_index.search(folder, file)
    assert content == (file.read_bytes(), sorted(path.name for path in file.parent.iterdir()))
    assert found["peak"] < 300_000_000  # torch takes more
