"""Captions corrected in a folder by keyboard alone, in Chromium, also when the server is killed half-way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import browser
import pytest
from browser import Picture, Visitor
from conftest import draw_picture
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from captioner.metadata.sidecars import Sidecars
from captioner.metadata.xmp import Held

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PICTURES = 30  # more than a page shows


@contextmanager
def opened(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`captioner app --folder`, until it is killed."""
    command = [sys.executable, "-m", "captioner", "app", "--folder", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        wait_for(lambda: answers(port))
        yield process
    finally:
        process.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        process.wait(60)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_for(condition: Callable[[], object], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def focused(visitor: Visitor) -> Picture | None:
    return next((picture for picture in visitor.pictures() if picture.focused), None)


def correct(visitor: Visitor) -> str:
    """Write the caption of the next picture that still needs one, without waiting until it is saved. Its path."""
    wait_for(lambda: (there := focused(visitor)) and there.state == "")
    path = next(picture.path for picture in visitor.pictures() if picture.focused)
    visitor.press(Keys.ENTER)
    write(visitor, f"Written for {path}")
    visitor.press(Keys.ENTER)
    return path


def write(visitor: Visitor, text: str) -> None:
    """Put a text in place of what is in the box."""
    ActionChains(visitor.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys(text).perform()


def test_a_killed_server_loses_no_correction(tmp_path: Path) -> None:
    if browser.chromium() is None:
        pytest.fail(browser.INSTALL) if os.environ.get("CI") else pytest.skip(browser.INSTALL)
    (tmp_path / "more").mkdir()
    for number in range(PICTURES):
        draw_picture(number).save(tmp_path / ("more" if number % 2 else ".") / f"{number}.png")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    done: list[str] = []
    with Visitor(f"http://localhost:{port}") as visitor:
        with opened(tmp_path, port):
            visitor.open("folder")
            visitor.wait(lambda: f"{PICTURES} captioned" in visitor.texts("[data-testid=stMain]")[0], 300)
            done += [correct(visitor) for _ in range(PICTURES // 2)]
        # Killed before it has answered. The next caption is typed while there is no server.
        wait_for(lambda: focused(visitor))
        visitor.press(Keys.ENTER)
        write(visitor, "Written for nobody")
        with opened(tmp_path, port):
            wait_for(lambda: saved(tmp_path, done))
            visitor.wait(lambda: f"{PICTURES} captioned" in visitor.texts("[data-testid=stMain]")[0], 300)
            visitor.press(Keys.ESCAPE)
            visitor.press(Keys.HOME)
            done += [correct(visitor) for _ in range(PICTURES - len(done))]
            wait_for(lambda: saved(tmp_path, done))
    assert len(set(done)) == PICTURES


def saved(folder: Path, paths: list[str]) -> bool:
    """Whether the sidecars of these pictures hold what was written for them."""
    return all(Sidecars().held(str(folder / path)) == Held(f"Written for {path}", False) for path in paths)
