"""captioner app: what it refuses, what it says, and that it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def port() -> int:
    """A port that is free."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.mark.parametrize("wrong", [0, -1, 65536, 99999])
def test_a_port_that_there_cannot_be_is_refused(command: Run, wrong: int) -> None:
    expected = f"captioner: error: --port {wrong}: a port is a number from 1 to 65535\n"
    assert command("app", f"--port={wrong}") == (2, "", expected)


def test_a_port_that_is_taken_is_refused(command: Run, port: int) -> None:
    with socket.create_server(("localhost", port)):
        status, _, message = command("app", "--port", port)
    assert status == 2
    assert message.count("\n") == 1
    assert f"cannot listen on localhost, port {port} (" in message


@pytest.mark.parametrize("host", ["192.0.2.1", "x" * 70 + ".invalid"])
def test_an_address_of_another_machine_is_refused(command: Run, port: int, host: str) -> None:
    status, _, message = command("app", "--port", port, "--host", host)
    assert (status, message.count("\n")) == (2, 1)
    assert "choose another --port or --host" in message


@pytest.mark.parametrize("path", ["a b", "a//b", "https://example.org/a", "a?b", "图"])
def test_a_base_path_that_is_no_path_is_refused(command: Run, path: str) -> None:
    status, _, message = command("app", "--base-path", path)
    assert (status, message.count("\n")) == (2, 1)
    assert "--base-path" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folder", "{photos}", "--host", "0.0.0.0"), "--folder opens pictures to this machine only"),
        (("--folder", "{photos}/none"), "no such folder"),
        (("--folder", "{empty}"), "no pictures in this folder or its subfolders"),
        (("--format", "xmp"), "it needs --folder"),
    ],
)
def test_a_folder_that_cannot_be_opened_is_refused(
    command: Run, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    (tmp_path / "empty").mkdir()
    places = {"photos": tmp_path / "photos", "empty": tmp_path / "empty"}
    status, _, said = command("app", *(option.format(**places) for option in options))
    assert (status, said.count("\n")) == (2, 1)
    assert message in said


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("stop", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_the_server(port: int, stop: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "captioner", "app", "--port", str(port), "--base-path", "/captions/"]
    with (tmp_path / "messages").open("w+") as messages:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages, cwd=tmp_path)
        try:
            wait_for(lambda: answers(f"http://localhost:{port}/captions/_stcore/health"))
            process.send_signal(stop)
            process.wait(20)
        finally:
            process.kill()
        messages.seek(0)
        assert f"the page is at http://localhost:{port}/captions;" in messages.read()
    with socket.socket() as probe:
        assert probe.connect_ex(("localhost", port)) != 0  # nothing goes on serving


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_page_and_the_server_of_apps_in_one_process(port: int, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        other = probe.getsockname()[1]
    command = [sys.executable, "-m", "captioner", "app", "--port", str(port), "--serve", str(other)]
    with (tmp_path / "messages").open("w+") as messages:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages, cwd=tmp_path)
        try:
            wait_for(lambda: answers(f"http://localhost:{port}/_stcore/health"), 120)
            wait_for(lambda: answers(f"http://127.0.0.1:{other}/health"), 120)
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
        finally:
            process.kill()
        messages.seek(0)
        assert f"apps are answered at http://127.0.0.1:{other}, described at" in messages.read()


def test_the_port_of_apps_must_be_free(command: Run, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        status, _, message = command("app", "--serve", port)
    assert status == 2
    assert f"cannot listen on 127.0.0.1, port {port} (" in message


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
