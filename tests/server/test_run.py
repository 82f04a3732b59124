"""Servers in processes of their own: how they start, what they refuse, and that their end loses nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import captioner
from server.running import HalfSent, base64_of, jpeg, until


class Process:
    """`captioner serve` as a user starts it."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        command = [sys.executable, "-m", "captioner", "serve", "--port", "0", *map(str, arguments)]
        own = {**os.environ, **environment}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=own)
        assert self.process.stderr
        self.said = self.process.stderr.readline()
        assert "serving at" in self.said, self.said + self.process.stderr.read()
        self.asked = 0  # how often for a figure
        self.address = self.said.split("serving at ")[1].split(",")[0]

    def metric(self, name: str) -> float:
        """A figure that the server tells of itself."""
        self.asked += 1
        lines = httpx.get(f"{self.address}/metrics").text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))

    def listens(self) -> bool:
        host, _, port = self.address.removeprefix("http://").rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=120).close()
        except OSError:
            return False
        return True

    def ended(self) -> tuple[int, str]:
        """The exit status, and what it said on stderr."""
        assert self.process.stderr
        return self.process.wait(120), self.process.stderr.read()


Start = Callable[..., Process]


@pytest.fixture
def start(tiny_checkpoint_file: Path) -> Iterator[Start]:
    """Starts servers, and ends those that the test leaves."""
    begun: list[Process] = []

    def start(*arguments: object, **environment: str) -> Process:
        begun.append(Process("--checkpoint", tiny_checkpoint_file, *arguments, **environment))
        return begun[-1]

    yield start
    for server in begun:
        server.process.kill()
        server.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_it_after_what_it_has_begun(start: Start, number: signal.Signals) -> None:
    server = start()
    image = base64_of(jpeg())
    body = {"model": "captioner", "images": [image], "stream": True}
    taken = [HalfSent(server.address, "/caption", {"image": image}) for _ in range(5)]
    until(lambda: server.metric("captioner_working") == 5)
    assert httpx.post(f"{server.address}/api/generate", json=body).status_code == 200
    server.process.send_signal(number)
    until(lambda: not server.listens())
    assert server.process.poll() is None
    answers = [request.answer() for request in taken]
    assert [status for status, _ in answers] == [200] * 5
    assert all(answer["results"][0]["caption"] for _, answer in answers)
    status, said = server.ended()
    assert status == 0
    assert said.endswith(" answered\n")


@pytest.mark.slow
def test_the_end_comes_at_once_when_nothing_is_left(start: Start) -> None:
    server = start()
    with httpx.Client(base_url=server.address) as client:  # its connection stays open
        assert client.get("/health").json()["model"] == "tiny"
        server.process.terminate()
        assert server.ended()[0] == 0


@pytest.mark.slow
def test_what_a_crowd_asks_while_it_is_stopped_is_answered_or_not_taken(start: Start) -> None:
    """A request that was not taken gets no answer at all, so that its client may ask again."""
    server = start()

    def ask(index: int) -> int:
        done = 0
        while True:
            try:
                answer = httpx.post(f"{server.address}/caption", files={"image": jpeg(index)}, timeout=120)
            except httpx.TransportError:
                return done
            assert answer.status_code == 200
            assert answer.json()["results"][0]["caption"]
            done += 1

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, index) for index in range(8)]
        until(lambda: server.metric("captioner_pictures_total") > 20)
        server.process.terminate()
        got = sum(one.result() for one in asking)
    status, said = server.ended()
    assert status == 0
    assert said == f"captioner: {got + server.asked:,} requests answered\n"


@pytest.mark.slow
def test_it_listens_to_this_machine_only_unless_told(start: Start) -> None:
    assert "serving at http://127.0.0.1:" in start().said


@pytest.mark.slow
def test_it_says_when_others_may_use_it(start: Start) -> None:
    server = start("--host", "0.0.0.0")
    server.process.terminate()
    assert "whoever reaches this machine may use it" in server.ended()[1]
    server = start("--host", "0.0.0.0", "--token", "secret")
    server.process.terminate()
    assert server.ended()[1] == "captioner: 0 requests answered\n"


@pytest.mark.slow
def test_the_token_may_come_from_the_environment(start: Start) -> None:
    server = start(CAPTIONER_TOKEN="secret")
    assert httpx.get(f"{server.address}/v1/models").status_code == 401
    headers = {"Authorization": "Bearer secret"}
    assert httpx.get(f"{server.address}/v1/models", headers=headers).status_code == 200


@pytest.mark.slow
def test_a_folder_and_options_from_the_command_line(start: Start, pictures: list[Path]) -> None:
    server = start("--folder", pictures[0].parent, "--strategy", "greedy", "--max-length", 3, "--root-path", "/a")
    answer = httpx.post(f"{server.address}/caption", json={"paths": ["picture2.jpg"]}).json()
    assert 0 < len(answer["results"][0]["words"]) <= 3
    assert server.address.endswith("/a")


def test_what_cannot_be_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    def model() -> captioner.Captioner:
        pytest.fail("a model was loaded")

    with pytest.raises(captioner.OptionError, match="no such folder"):
        captioner.serve(model, folder=tmp_path / "none")
    for wrong in ("a", "/a/", "a/b"):
        with pytest.raises(captioner.OptionError, match="root_path"):
            captioner.serve(model, root_path=wrong)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(captioner.OptionError, match="cannot listen"):
        captioner.serve(model, port=taken.getsockname()[1])
    for host in ("192.0.2.1", "x" * 70 + ".invalid"):
        with pytest.raises(captioner.OptionError, match="cannot listen"):
            captioner.serve(model, host=host, port=0)
    with pytest.raises(captioner.OptionError, match="cannot listen"):
        captioner.serve(model, port=70_000)
