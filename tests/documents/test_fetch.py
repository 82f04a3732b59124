"""Only public addresses are asked for pictures."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from captioner.documents import fetch
from captioner.errors import ImageError


class Server(ThreadingHTTPServer):
    asked: list[str]


class Names:
    """The module `socket`, to which all names have the same addresses."""

    def __init__(self, found: list[tuple[object, ...]]) -> None:
        self.getaddrinfo = lambda *_, **__: found
        self.SOCK_STREAM, self.create_connection = socket.SOCK_STREAM, socket.create_connection


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on this machine, which notes what it is asked for. A path names the address to go on to."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            httpd.asked.append(self.path)
            target = self.path[1:]
            self.send_response(302 if "://" in target else 404 if target == "gone" else 200)
            if "://" in target:
                self.send_header("Location", target)
            self.end_headers()
            self.wfile.write(b"x" * 1000)

        def log_message(self, *_: object) -> None:
            pass

    httpd = Server(("127.0.0.1", 0), Handler)
    httpd.asked = []
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0"])
def test_this_machine_is_not_asked(server: Server, host: str) -> None:
    with pytest.raises(ImageError, match="cannot be fetched"):
        fetch.fetch(f"http://{host}:{server.server_port}/a.png")
    assert server.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "224.0.0.1",
        # Private ones behind gateways from the newer kind of addresses to the older, and kinds of the past.
        *("64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "::127.0.0.1", "fec0::1", "::ffff:10.0.0.1"),
    ],
)
def test_which_addresses_are_private(address: str) -> None:
    assert not fetch._is_public(address)


def test_which_addresses_are_public() -> None:
    assert fetch._is_public("93.184.216.34")
    assert fetch._is_public("2606:2800:220:1::1")
    assert fetch._is_public("64:ff9b::93.184.216.34")


def test_one_private_address_of_a_name_is_enough_to_refuse_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(fetch, "socket", Names(found))
    with pytest.raises(ImageError, match=r"example\.org is not a public address"):
        fetch.fetch("http://example.org/a.png")


@pytest.fixture
def as_if_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address of this machine counts as public; the others do not."""
    monkeypatch.setattr(fetch, "_is_public", lambda address: address == "127.0.0.1")


@pytest.mark.usefixtures("as_if_public")
def test_a_picture_is_fetched(server: Server) -> None:
    at = f"http://127.0.0.1:{server.server_port}"
    assert fetch.fetch(f"{at}/é b%20c.png") == b"x" * 1000
    assert server.asked == ["/%C3%A9%20b%20c.png"]
    assert fetch.fetch(f"{at}/a.png") == b"x" * 1000
    assert fetch.fetch(f"{at}/{at}/b.png") == b"x" * 1000
    with pytest.raises(ImageError, match=r"gone: cannot be fetched \(Not Found\)"):
        fetch.fetch(f"{at}/gone")


@pytest.mark.usefixtures("as_if_public")
@pytest.mark.parametrize("target", ["http://127.0.0.2:{port}/x", "file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_each_redirection_is_checked(server: Server, target: str) -> None:
    with pytest.raises(ImageError, match="cannot be fetched"):
        fetch.fetch(f"http://127.0.0.1:{server.server_port}/" + target.format(port=server.server_port))
    assert len(server.asked) == 1


@pytest.mark.usefixtures("as_if_public")
def test_size_and_time_are_limited(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{server.server_port}/a.png"
    monkeypatch.setattr(fetch, "_SECONDS", -1.0)
    with pytest.raises(ImageError, match="takes longer"):
        fetch.fetch(address)
    monkeypatch.setattr(fetch, "MAX_BYTES", 999)
    with pytest.raises(ImageError, match="is larger than"):
        fetch.fetch(address)


def test_all_addresses_of_a_name_are_tried(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (address, 80)) for address in ("127.0.0.9", "127.0.0.1")]  # the server listens at the second
    monkeypatch.setattr(fetch, "_is_public", lambda address: True)
    monkeypatch.setattr(fetch, "socket", Names(found))
    assert fetch.fetch(f"http://example.org:{server.server_port}/a.png") == b"x" * 1000
    monkeypatch.setattr(fetch, "socket", Names(found[:1]))
    with pytest.raises(ImageError, match="cannot be fetched"):
        fetch.fetch(f"http://example.org:{server.server_port}/a.png")
