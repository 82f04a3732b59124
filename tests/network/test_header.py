"""Shipped checkpoints are found by short name, files by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.cli import main as cli
from captioner.errors import CheckpointError
from captioner.inference.captioner import load
from captioner.network import header as shipped
from captioner.network.header import describe, find_checkpoint, shipped_checkpoints


@pytest.fixture(params=["package/checkpoints", "checkpoints"], ids=["installed", "clone"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two shipped checkpoints, which hold nothing."""
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "package" / "network" / "header.py"))
    folder: Path = tmp_path / request.param
    folder.mkdir(parents=True)
    for name in ("a-zh-net_v2.safetensors", "flickr8k-net_v2.safetensors", "README.md"):
        (folder / name).touch()
    return folder


def test_short_names_and_the_default(folder: Path) -> None:
    assert list(shipped_checkpoints()) == ["flickr8k", "a-zh"]
    assert find_checkpoint() == find_checkpoint("flickr8k") == folder / "flickr8k-net_v2.safetensors"
    assert find_checkpoint("a-zh") == folder / "a-zh-net_v2.safetensors"


def test_paths_stay_paths(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine.safetensors", "./flickr8k", "runs/mine"):
        assert find_checkpoint(name) == Path(name)
    monkeypatch.chdir(tmp_path)
    Path("mine").touch()
    assert find_checkpoint("mine") == Path("mine")


def test_a_wrong_name_is_told_the_right_ones(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="flickr9k: no such checkpoint: give a file, or one of flickr8k, a-zh"):
        find_checkpoint("flickr9k")


def test_where_none_came_along_the_message_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "package" / "network" / "header.py"))
    with pytest.raises(CheckpointError, match="is not there: give a file with --checkpoint"):
        find_checkpoint()


def test_the_list_names_what_load_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(shipped_checkpoints())
    for line, (name, path) in zip(lines, shipped_checkpoints().items(), strict=True):
        assert line.split()[0] == name
        assert "BLEU-4" in line
        assert describe(path)["vocabulary"] == list(load(name).vocabulary.words)
