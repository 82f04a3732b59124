"""A checkpoint that writes characters, through the whole program: its text has no spaces anywhere."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from conftest import CHINESE

import captioner

Command: TypeAlias = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parent.parent


@pytest.fixture
def caption(command: Command, chinese_checkpoint_file: Path) -> Callable[..., str]:
    """What `captioner caption ... --checkpoint CHINESE` prints."""

    def run(*arguments: object) -> str:
        status, output, _ = command("caption", *arguments, "--checkpoint", chinese_checkpoint_file, "--quiet")
        assert status == 0
        return output

    return run


@pytest.fixture
def texts(chinese_checkpoint_file: Path, pictures: list[Path]) -> list[str]:
    """The pictures' captions from Python, of several characters each and nothing but these."""
    found = [caption.text for caption in captioner.load(chinese_checkpoint_file).caption_batch(pictures)]
    assert set("".join(found)) <= set(CHINESE)
    assert max(map(len, found)) > 3
    assert len(set(found)) > 1
    return found


def test_text(caption: Callable[..., str], pictures: list[Path], texts: list[str]) -> None:
    assert [line.split("\t")[1] for line in caption(*pictures).splitlines()] == texts


def test_jsonl(caption: Callable[..., str], pictures: list[Path], texts: list[str]) -> None:
    output = caption(*pictures, "--format", "jsonl")
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row["caption"] for row in rows] == texts
    assert ["".join(word["word"] for word in row["words"]) for row in rows] == texts
    assert texts[0] in output  # not escaped


def test_csv(caption: Callable[..., str], pictures: list[Path], texts: list[str]) -> None:
    rows = csv.DictReader(io.StringIO(caption(*pictures, "--format", "csv")))
    assert [row["caption"] for row in rows] == texts


def test_html(caption: Callable[..., str], pictures: list[Path], texts: list[str], tmp_path: Path) -> None:
    caption(*pictures, "--format", "html", "--output", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert [html.unescape(text) for text in re.findall(r"<figcaption><p>(.*?)</p>", page)] == texts
    assert re.findall(r' alt="(.*?)"', page) == texts


def test_sidecars(caption: Callable[..., str], pictures: list[Path], texts: list[str]) -> None:
    caption(*pictures, "--format", "sidecar")
    assert [path.with_suffix(".txt").read_text(encoding="utf-8") for path in pictures] == [f"{t}\n" for t in texts]


@pytest.mark.parametrize("prompt", ["一只狗", "一 只狗。"])
def test_a_prompt_is_cut_into_characters(caption: Callable[..., str], pictures: list[Path], prompt: str) -> None:
    for line in caption(*pictures, "--prompt", prompt).splitlines():
        text = line.split("\t")[1]
        assert text.startswith("一只狗")
        assert set(text) <= set(CHINESE)


def test_score(command: Command, chinese_checkpoint_file: Path, pictures: list[Path], texts: list[str]) -> None:
    arguments = (pictures[0], texts[0], "--words", "--checkpoint", chinese_checkpoint_file)
    status, output, errors = command("score", *arguments)
    sentence, *words = output.splitlines()
    assert (status, errors, sentence.split("\t")[1]) == (0, "", texts[0])
    assert [line.split("\t")[2] for line in words] == [*texts[0], "<end>"]


def test_sample(command: Command, chinese_checkpoint_file: Path) -> None:
    status, output, _ = command(
        "sample", "--num-captions", 5, "--prompt", "狗", "--checkpoint", chinese_checkpoint_file
    )
    assert status == 0
    assert len(output.splitlines()) == 5
    for line in output.splitlines():
        assert line.startswith("狗")
        assert set(line) <= set(CHINESE)
