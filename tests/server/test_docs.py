"""The examples of docs/serving.md, as a reader would copy them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from captioner.inference.captioner import Captioner
from captioner.server.app import application
from captioner.server.service import Service
from server.running import Start, jpeg

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"(?ms)^```{kind}\n(.*?)^```$", PAGE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, name in enumerate(("dog.jpg", "cat.jpg")):
        (tmp_path / name).write_bytes(jpeg(index))
    return tmp_path


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(start: Start, folder: Path) -> None:
    server = start(folder)
    commands = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    assert len(commands) > 5
    for command in commands:
        # The tests' model knows neither tags nor many words.
        here = (
            command.replace("http://127.0.0.1:11434", server.address)
            .replace("brown ", "")
            .replace("-F tags=5 -F people=neutral", "")
        )
        done = subprocess.run(here, shell=True, cwd=folder, capture_output=True, text=True, check=True)
        assert "results" in done.stdout, command + done.stdout
        rows = json.loads(done.stdout)["results"]
        assert all("caption" in row or "scores" in row for row in rows), command


@pytest.mark.parametrize("code", blocks("python"), ids=["openai", "ollama"])
def test_python(start: Start, folder: Path, code: str) -> None:
    server = start(folder)
    # The tests' model knows no confidence.
    here = code.replace("http://127.0.0.1:11434", server.address).replace('["confidence"]', '["logprob"]')
    done = subprocess.run([sys.executable, "-c", here], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout.strip(), done.stderr


def test_all_that_is_configured_is_well_formed() -> None:
    for block in blocks("yaml"):
        assert yaml.safe_load(block)
    tomllib = pytest.importorskip("tomllib")  # since Python 3.11
    for block in blocks("toml"):
        assert tomllib.loads(block)


def test_every_route_is_in_the_table(model: Captioner) -> None:
    service = Service(model)
    paths: dict[str, Any] = application(service).openapi()["paths"]
    service.close()
    assert all(f"`{path}`" in PAGE or f"POST {path}`" in PAGE for path in paths if "{" not in path)
