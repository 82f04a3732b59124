"""captioner apply: what it prints, and its exit status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def edited(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with captions of two pictures in the current folder."""
    monkeypatch.chdir(pictures[0].parent)
    Path("edited.csv").write_text("path,caption\npicture0.jpg,A dog\npicture1.jpg,A cat\n")
    return Path("edited.csv")


def test_a_dry_run_lists_and_a_run_reports(command: Command, edited: Path) -> None:
    status, out, err = command("apply", edited, "-f", "sidecar", "--extension", ".caption", "--dry-run")
    assert (status, err) == (0, "captioner: 2 to write\n")
    assert out == "picture0.jpg\tpicture0.caption\tA dog\npicture1.jpg\tpicture1.caption\tA cat\n"
    assert not Path("picture0.caption").exists()
    Path("picture0.txt").write_text("Other\n")
    Path("picture1.txt").write_text("A cat\n")
    with edited.open("a") as file:
        file.write("picture2.jpg,A man\ngone.jpg,B\n")
    status, out, err = command("apply", edited, "-f", "sidecar")
    assert (status, out) == (1, "")
    assert "picture0.jpg: kept, because its text file says something else; --overwrite-edited" in err
    assert "gone.jpg: not found" in err
    assert "captioner: 1 written, 1 as they were, 1 kept, 1 not found\n" in err


@pytest.mark.parametrize("order", ["edited.csv -f alt a.md b.md", "-f alt edited.csv a.md b.md"])
def test_documents_may_follow_the_flags(command: Command, edited: Path, order: str) -> None:
    for name in ("a.md", "b.md"):
        Path(name).write_text("![](picture0.jpg)\n")
    assert command("apply", *order.split()) == (
        0,
        "",
        "captioner: 2 written, 1 for which no document has a gap\n",
    )
    assert Path("a.md").read_text() == Path("b.md").read_text() == "![A dog](picture0.jpg)\n"


def test_wrong_usage_is_refused(command: Command, edited: Path) -> None:
    assert "arguments are required: -f/--format\n" in command("apply", edited)[2]
    assert "required: FILE, -f/--format\n" in command("apply")[2]
    assert command("apply", edited, "-f", "xmp", "--no-such-flag")[0] == 2
    assert "captioner models: error: unrecognized arguments: more.jpg" in command("models", "more.jpg")[2]
    assert "the other formats take none" in command("apply", edited, "-f", "xmp", "a.md")[2]
