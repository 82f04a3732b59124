"""Servers in this process, on free ports, and requests whose end the test decides."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from conftest import draw_picture

from captioner.inference.captioner import Captioner
from captioner.options import DecodeOptions, ServeOptions
from captioner.server.app import application
from captioner.server.service import Service

Start = Callable[..., "Running"]


def jpeg(index: int = 0) -> bytes:
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    draw_picture(index).save(file, "JPEG")
    return file.getvalue()


def base64_of(data: bytes) -> str:
    """As requests in JSON carry it."""
    return base64.b64encode(data).decode()


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for a condition, with a limit that no machine should reach."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Running:
    """A server that runs, and a client of it."""

    def __init__(self, service: Service, address: str) -> None:
        self.service, self.address = service, address
        self.client = httpx.Client(base_url=address, timeout=120)

    def post(self, path: str, body: object = None, **given: Any) -> httpx.Response:
        """POST, as JSON unless told otherwise."""
        return self.client.post(path, json=body, **given) if body is not None else self.client.post(path, **given)

    def working(self) -> int:
        """The number of requests that it is answering."""
        return int(self.service.metrics.get_sample_value("captioner_working") or 0)


class HalfSent:
    """A request of which the last byte is yet to come."""

    def __init__(self, address: str, path: str, body: object) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        self._socket, self._last = socket.create_connection((host, int(port)), timeout=120), content[-1:]
        self._socket.sendall(head.encode() + content[:-1])

    def answer(self) -> tuple[int, Any]:
        """Send the last byte; the status and the JSON of the answer."""
        self._socket.sendall(self._last)
        return self.answer_without_an_end()

    def answer_without_an_end(self) -> tuple[int, Any]:
        """The same without sending anything more."""
        with self._socket as connection:
            answer = b""
            while block := connection.recv(1 << 16):
                answer += block
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content)


@contextmanager
def running(model: Captioner, folder: Path | None = None, limits: dict[str, Any] | None = None, **given: Any) -> Any:
    """A server, until the block ends."""
    options, prompt = given.pop("options", DecodeOptions()), given.pop("prompt", "")
    service = Service(model, options, prompt, ServeOptions(**(limits or {})), folder)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(service, **given), log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    server_of = Running(service, f"http://127.0.0.1:{listener.getsockname()[1]}")
    try:
        yield server_of
    finally:
        server_of.client.close()
        server.should_exit = True
        thread.join()
