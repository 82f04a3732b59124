"""captioner alt: its lists, its exit status, and what a check does without."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site(pictures: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(pictures[0].parent)
    Path("a.md").write_text("# Pictures\n\n- ![](picture0.jpg)\n")
    Path("b,c.html").write_text("<img src='picture1.jpg?100%'>\n<img src=gone.jpg alt=''>")
    return pictures[0].parent


def test_lists(command: Command, site: Path) -> None:
    status, out, err = command("alt", ".")
    assert (status, err) == (0, "captioner: 2 pictures without alternative text, in 2 documents\n")
    assert out == (
        "./a.md:3:3: picture0.jpg: no alternative text\n./b,c.html:1:1: picture1.jpg?100%: no alternative text\n"
    )
    status, out, _ = command("alt", ".", "-f", "github")
    assert out == (
        "::error file=a.md,line=3,col=3::picture0.jpg: no alternative text\n"
        "::error file=b%2Cc.html,line=1,col=1::picture1.jpg?100%25: no alternative text\n"
    )
    status, out, _ = command("alt", ".", "-f", "json")
    assert [(row["line"], row["column"], row["state"]) for row in json.loads(out)] == [
        (3, 3, "lacking"),
        (1, 1, "lacking"),
    ]


def test_a_check_needs_neither_torch_nor_network_and_says_the_same_each_time(site: Path) -> None:
    code = """
import socket, sys
socket.socket = socket.create_connection = socket.getaddrinfo = None
from captioner.cli.main import main
status = main(["alt", ".", "--check"])
assert not {"torch", "streamlit", "matplotlib"} & sys.modules.keys()
sys.exit(status)
"""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=False) for _ in range(2)]
    assert runs[0].returncode == 1, runs[0].stderr
    assert runs[0].stdout.count(b"\n") == 2
    assert runs[0].stdout == runs[1].stdout


def test_a_check_after_filling_in_is_clean(command: Command, site: Path, tiny_checkpoint_file: Path) -> None:
    given = ("--min-confidence", 0, "--checkpoint", tiny_checkpoint_file)
    status, out, err = command("alt", ".", "--write", *given, "-q")
    assert (status, out.count("filled in (confidence"), err) == (0, 2, "")
    assert command("alt", ".", "--check") == (0, "", "captioner: 0 pictures without alternative text, in 2 documents\n")


def test_exit_status_of_failures_and_of_wrong_usage(command: Command, site: Path, tiny_checkpoint_file: Path) -> None:
    Path("a.md").write_text("![](gone.jpg)")
    assert command("alt", "a.md")[0] == 0
    assert command("alt", "a.md", "--write", "--checkpoint", tiny_checkpoint_file)[0] == 1
    Path("x.epub").write_text("no zip")
    status, out, err = command("alt", "x.epub")
    assert (status, out) == (1, "")
    assert err.startswith("captioner: x.epub: not an EPUB")
    assert command("alt", "a.md", "--check", "--write")[0] == 2
    assert command("alt", "a.md", "--fetch")[0] == 2
    assert command("alt", "picture0.jpg")[0] == 2
