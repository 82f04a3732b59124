"""How far a job is, on a terminal and in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest
from tqdm import tqdm

from captioner.inference import progress
from captioner.inference.progress import LogLines, duration, progress_bar, watched


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.01)


def test_a_log_gets_lines_also_during_a_long_step(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(2000, "epoch 1/2 decoder", "step", 500) as bar:
        bar.update(500)
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("captioner: epoch 1/2 decoder: 1,000 of 2,000 steps, about ") for line in lines)
    time.sleep(0.1)  # it is closed
    assert capsys.readouterr().err == ""


def test_a_line_says_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar, unknown = LogLines(10, "", "picture", 4), LogLines(None, "captioning", "picture", 0)
    bar.close()
    unknown.close()
    now[0] = 130.0
    assert bar.line() == "4 of 10 pictures"  # nothing was done that could tell how long a picture takes
    bar.update(2)
    assert bar.line() == "6 of 10 pictures, about 60 s left"
    unknown.update()
    assert unknown.line() == "captioning: 1 picture so far"


def test_a_terminal_gets_a_bar_and_who_wants_nothing_gets_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar(10, "", "picture", hidden=True) as bar:
        bar.update()
        time.sleep(0.1)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar(10, "encoding", "picture") as bar:
        assert isinstance(bar, tqdm)
    assert "encoding:   0%" in capsys.readouterr().err


def test_lines_end_when_what_is_watched_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    def numbers() -> Iterator[int]:
        yield from range(3)

    assert list(watched(numbers(), total=3)) == [0, 1, 2]
    watching = watched(numbers(), total=3)
    next(watching)
    watching.close()  # type: ignore[attr-defined]
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h"), (1e5, "27.8 h")],
)
def test_a_duration_has_two_digits_or_so(seconds: float, words: str) -> None:
    assert duration(seconds) == words
