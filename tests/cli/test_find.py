"""captioner find: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def given(
    pictures: list[Path], finder_checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The pictures, and the flags that each command gets."""
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "cache"))
    shutil.copy(pictures[2], pictures[2].with_name("=copy.jpg"))
    return [str(pictures[0].parent), "--checkpoint", str(finder_checkpoint_file), "--precision", "float32"]


def test_all_formats_hold_the_same(given: list[str], command: Command, tmp_path: Path) -> None:
    status, text, said = command("find", "a dog", *given, "-n", 5)
    assert status == 0
    assert "8 indexed" not in said  # the copy is not encoded again
    assert "7 indexed" in said
    found = [line.split("\t") for line in text.splitlines()]
    assert len(found) == 5
    assert [float(score) for _, score in found] == sorted((float(score) for _, score in found), reverse=True)
    jsonl = [json.loads(line) for line in command("find", "a dog", *given, "-n", 5, "-f", "jsonl")[1].splitlines()]
    assert [[row["path"], str(row["score"])] for row in jsonl] == found
    for name in ("a.csv", "a.html", "a.txt"):
        assert command("find", "a dog", *given, "-n", 5, "-o", tmp_path / name) == (0, "", "")
    assert (tmp_path / "a.txt").read_text() == text
    table = [*csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text()))]
    assert [[row["path"], row["score"]] for row in table] == found
    page = (tmp_path / "a.html").read_text()
    places = [page.index(f'title="{path}"') for path, _ in found]
    assert places == sorted(places)
    status, out, said = command("find", "a dog", *given, "-o", tmp_path / "a.csv")
    assert (status, out) == (2, "")
    assert "exists already" in said


def test_duplicates_have_a_group(given: list[str], command: Command, tmp_path: Path) -> None:
    status, text, _ = command("find", "--duplicates", *given)
    assert status == 0
    assert {tuple(line.split("\t")[1:]) for line in text.splitlines()} == {("1.0", "1")}
    assert {Path(line.split("\t")[0]).name for line in text.splitlines()} == {"picture2.jpg", "=copy.jpg"}
    command("find", "--duplicates", *given, "-o", tmp_path / "a.html")
    assert "Group 1" in (tmp_path / "a.html").read_text()


def test_similar_pictures_need_no_sentence(given: list[str], command: Command) -> None:
    picture = str(Path(given[0]) / "picture2.jpg")
    status, text, _ = command("find", "--like", picture, *given, "-n", 1)
    assert status == 0
    assert Path(text.split("\t")[0]).name == "=copy.jpg"
    assert command("find", "--like", picture, "--text", "a dog", "--not", "a cat", *given)[0] == 0


def test_flags_may_stand_between_the_sentence_and_the_pictures(given: list[str], command: Command) -> None:
    """As the documentation writes it."""
    folder, *rest = given
    after = command("find", "a dog", folder, *rest, "--not", "a cat", "-n", 2)
    assert command("find", "a dog", "--not", "a cat", "-n", 2, folder, *rest)[:2] == after[:2]
    assert command("find", "a dog", "-n", 2, folder, *rest, "--nonsense")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a dog"], "no pictures were given"),
        (["--duplicates"], "captioner find --duplicates photos/"),
        (["--duplicates", ".", "--not", "a dog"], "goes with neither"),
        (["a dog", ".", "--text", "a cat"], "--text goes with --like"),
        (["a dog", ".", "--threshold", "0.9"], "--threshold goes with --duplicates"),
        (["a dog", ".", "-o", "captions.json"], "format must be one of"),
        (["a dog", "nowhere/"], "no such file"),
        (["a dog", "nowhere"], "nowhere: no such file or folder"),
        (["zeppelin", "FOLDER"], "knows none of these words"),
    ],
)
def test_what_does_not_fit_is_refused(given: list[str], command: Command, arguments: list[str], message: str) -> None:
    words = [given[0] if word == "FOLDER" else word for word in arguments]
    status, out, said = command("find", *words, *given[1:])
    assert status in (1, 2)
    assert not out
    assert message in said
    assert "indexed" not in said
