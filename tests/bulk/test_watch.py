"""Folders that are watched: what is captioned when, and what a person, a kill or an unplugged disk changes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import draw_picture
from metadata.test_xmp import description, sidecar

import captioner
from captioner.bulk import watch
from captioner.bulk.progress import Progress
from captioner.errors import CheckpointError, InputError, OptionError
from captioner.inference.captioner import Captioner, load
from captioner.metadata import embedded, sidecars
from captioner.metadata.xmp import Held

NEEDS_EXIV2 = pytest.mark.skipif(not embedded.available(), reason="needs exiv2")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tiny_checkpoint_file: Path) -> Captioner:
    return load(tiny_checkpoint_file)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the pictures of each batch that is encoded."""
    batches: list[list[str]] = []
    together = Captioner.caption_together

    def noted(self: Captioner, pictures: Any, *how: Any, **more: Any) -> Any:
        pictures = list(pictures)
        batches.append([Path(name).name for name, _ in pictures])
        return together(self, pictures, *how, **more)

    monkeypatch.setattr(Captioner, "caption_together", noted)
    return batches


@pytest.fixture
def folder(pictures: list[Path], model: Captioner) -> Callable[..., tuple[Any, list[str]]]:
    """A function that makes the watcher of the folder of the pictures, without settling, and the lines that it says."""

    def make(settle: float = 0.0, **given: Any) -> tuple[Any, list[str]]:
        lines: list[str] = []
        given = {"format": "xmp", "output": None, "model": model, **given}
        return watch._Folder(str(pictures[0].parent), False, settle, given, Progress(say=lines.append)), lines

    return make


def held(picture: Path) -> Held:
    return sidecars.Sidecars().held(str(picture)) or Held("nothing", False)


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until something has happened, on however busy a machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_picture_that_grows_is_captioned_once_at_its_end(
    folder: Any, pictures: list[Path], asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(watch, "time", clock)
    content = pictures[0].read_bytes()
    for path in pictures:
        path.unlink()
    watched, lines = folder(settle=2.0)
    for part in range(1, 5):
        pictures[0].write_bytes(content[: len(content) * part // 4])
        watched.look()
        clock.now += 1.9
        watched.look()
        assert asked == []
    assert watched.seconds() == pytest.approx(0.1)
    clock.now += 0.2
    for _ in range(3):
        watched.look()
    assert asked == [["picture0.jpg"]]
    assert held(pictures[0]).ours
    assert lines == [f"captioner: {pictures[0].parent}: 1 captioned, 0 failed"]


def test_many_pictures_are_captioned_in_goes(
    folder: Any, pictures: list[Path], asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MOST", 3)
    watched, lines = folder()
    assert [watched.look() for _ in range(4)] == [True, True, False, False]
    assert [len(batch) for batch in asked] == [3, 3, 1]
    assert watched.captioned == 7
    assert lines[0].endswith("3 captioned, 0 failed")


def test_after_a_restart_nothing_is_done_twice(
    folder: Any, pictures: list[Path], asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(sidecars.Sidecars, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            folder()[0].look()
    assert len(asked) == 1
    assert not held(pictures[0]).ours
    watched, _ = folder()
    watched.look()
    assert len(asked) == 1
    assert all(held(path).ours for path in pictures)
    restarted, lines = folder(model=lambda: pytest.fail("loaded a model for nothing"))
    restarted.look()
    assert lines == []


def test_a_journal_of_other_settings_does_not_stop_it(
    folder: Any, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(sidecars.Sidecars, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            folder()[0].look()
    watched, lines = folder(prompt="the red dog")
    watched.look()
    watched.look()
    assert lines == [f"captioner: {pictures[0].parent}: 7 captioned, 0 failed"]
    assert held(pictures[0]).text.startswith("The red dog")


def test_a_folder_that_vanishes_is_waited_for(folder: Any, pictures: list[Path]) -> None:
    watched, lines = folder()
    watched.look()
    away = pictures[0].parent.with_name("away")
    pictures[0].parent.rename(away)
    for _ in range(3):
        assert not watched.look()
    draw_picture(8).save(away / "late.jpg")
    away.rename(pictures[0].parent)
    watched.look()
    name = pictures[0].parent
    told = ["7 captioned, 0 failed", "is not there: waiting for it", "is there again", "1 captioned, 0 failed"]
    assert lines == [f"captioner: {name}: {line}" for line in told]
    assert held(name / "late.jpg").ours


def test_a_folder_that_vanishes_during_a_batch_fails_no_picture(
    folder: Any, pictures: list[Path], model: Captioner
) -> None:
    away = pictures[0].parent.with_name("away")

    def late() -> Captioner:
        pictures[0].parent.rename(away)
        return model

    watched, lines = folder(model=late)
    watched.look()
    watched.look()
    assert lines == [f"captioner: {pictures[0].parent}: is not there: waiting for it"]
    assert watched.failed == 0


def test_of_changed_pictures_only_our_captions_are_renewed(
    folder: Any, pictures: list[Path], asked: list[list[str]]
) -> None:
    watched, _ = folder()
    watched.look()
    Path(f"{pictures[1]}.xmp").write_bytes(sidecar(description("My dog")))
    before = held(pictures[0])
    for path in pictures[:2]:
        shutil.copy(pictures[5], path)
        os.utime(path, ns=(0, 1))
    watched.look()
    assert asked[1:] == [["picture0.jpg"]]
    assert held(pictures[0]).text == held(pictures[5]).text != before.text
    assert held(pictures[1]) == Held("My dog", False)


@NEEDS_EXIV2
@pytest.mark.parametrize("place", ["xmp", "embed"])
def test_neither_our_writing_nor_a_rating_makes_it_go_round(
    place: str, folder: Any, pictures: list[Path], asked: list[list[str]]
) -> None:
    watched, _ = folder(format=place)
    watched.look()
    watched.look()
    assert len(asked) == 1
    os.utime(pictures[0], ns=(0, 1))  # as after a rating was written into it
    files = [pictures[0], *pictures[0].parent.glob("picture0.jpg.xmp")]
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    for _ in range(3):
        watched.look()
    assert len(asked) == 2
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files] == before


def test_a_broken_picture_is_named_once_and_tried_again_when_it_changes(folder: Any, pictures: list[Path]) -> None:
    content = pictures[2].read_bytes()
    pictures[2].write_bytes(content[:500])
    watched, lines = folder()
    for _ in range(3):
        watched.look()
    assert ["picture2.jpg" in line for line in lines] == [True, False]
    pictures[2].write_bytes(content)
    watched.look()
    assert held(pictures[2]).ours
    assert watched.failed == 1


def test_what_the_system_refuses_is_said_once_and_tried_again_later(
    folder: Any, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(watch, "time", clock)
    (file := pictures[0].parent.with_name("captions.csv")).write_text("no,columns\n")
    watched, lines = folder(format="csv", output=file)
    for _ in range(3):
        watched.look()
        clock.now += 61
    assert len(lines) == 1
    assert "does not name the columns" in lines[0]
    file.unlink()
    watched.look()
    assert file.read_text(encoding="utf-8-sig").count("\n") == 8


@pytest.fixture(params=["events", "polling"])
def started(request: pytest.FixtureRequest, model: Captioner) -> Iterator[Callable[..., list[str]]]:
    """Starts watching in a thread, which ends with the test. Returns the lines that it says."""
    if request.param == "events" and not find_spec("watchfiles"):
        pytest.skip("needs watchfiles")
    stop, threads = threading.Event(), []

    def start(*paths: Path, **given: Any) -> list[str]:
        lines: list[str] = []
        poll = 0.1 if request.param == "polling" else None
        settings = {"settle": 0.1, "poll": poll, "stop": stop, "progress": Progress(say=lines.append), **given}
        thread = threading.Thread(target=captioner.watch_folders, args=(paths,), kwargs={"model": model, **settings})
        threads.append(thread)
        thread.start()
        return lines

    yield start
    stop.set()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()


def test_it_captions_what_comes(started: Callable[..., list[str]], pictures: list[Path], tmp_path: Path) -> None:
    (other := tmp_path / "other").mkdir()
    started(pictures[0].parent, other, tmp_path / "not there yet", recursive=True)
    until(lambda: all(held(path).ours for path in pictures))
    shutil.copytree(pictures[0].parent, other / "sub" / "folder", ignore=shutil.ignore_patterns("*.xmp"))
    until(lambda: held(other / "sub" / "folder" / "picture6.jpg").ours)
    (other / "sub" / "folder" / "picture6.jpg").rename(other / "new.jpg")
    until(lambda: held(other / "new.jpg").ours)


def test_wrong_usage_is_refused(pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        captioner.watch_folders(tmp_path / "none")
    for given in ({"format": "html"}, {"format": "csv"}, {"settle": -1}, {"poll": 0.0}, {"output": "a.html"}):
        with pytest.raises(OptionError):
            captioner.watch_folders(pictures[0].parent, **given)
    said: list[str] = []
    unfit = {"format": "embed", "metadata": captioner.MetadataOptions(xmp_name="stem")}
    with pytest.raises(OptionError, match="xmp_name"):
        captioner.watch_folders(pictures[0].parent, progress=Progress(say=said.append), **unfit)
    assert not said
    with pytest.raises(CheckpointError):
        captioner.watch_folders(pictures[0].parent, settle=0, model=lambda: load(tmp_path / "none"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_batch(number: int, pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    command = [sys.executable, "-m", "captioner", "watch", pictures[0].parent, "--checkpoint", tiny_checkpoint_file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: held(pictures[6]).ours)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "")
    assert err.splitlines()[0] == f"captioner: watching {pictures[0].parent}"
    assert err.splitlines()[-1] == "captioner: stopped: 7 captioned, 0 failed"


@pytest.mark.slow
def test_thousands_of_pictures_at_once(started: Callable[..., list[str]], tmp_path: Path) -> None:
    (folder := tmp_path / "many").mkdir()
    lines = started(folder)
    draw_picture(0, (32, 32)).save(tmp_path / "one.png")
    content = (tmp_path / "one.png").read_bytes()
    for number in range(2_000):
        (folder / f"{number}.png").write_bytes(content)
    until(lambda: len(list(folder.glob("*.xmp"))) == 2_000, seconds=1200)
    assert all(int(line.split(": ")[-1].split()[0]) <= watch.MOST for line in lines[1:])
