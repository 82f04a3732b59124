"""Who is let in, how much at once, and how refusals look in each dialect."""

from __future__ import annotations

import socket

import pytest

from captioner.server import gate
from server.running import HalfSent, Running, Start, base64_of, jpeg, until

CHAT = {"model": "captioner", "messages": []}


def body(path: str) -> dict[str, object]:
    """A good request for a path."""
    image = base64_of(jpeg())
    content = [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image}"}}]
    return {
        "/caption": {"image": image},
        "/api/generate": {"model": "captioner", "images": [image], "stream": False},
        "/v1/chat/completions": {"model": "captioner", "messages": [{"role": "user", "content": content}]},
    }[path]


def message(path: str, answer: dict[str, object]) -> str:
    """The text of an error, whose form is checked."""
    if not path.startswith("/v1/"):
        assert list(answer) == ["error"]
        return str(answer["error"])
    error = answer["error"]
    assert isinstance(error, dict)
    assert list(error) == ["message", "type", "param", "code"]
    return str(error["message"])


PATHS = ["/caption", "/api/generate", "/v1/chat/completions"]


@pytest.mark.parametrize("path", PATHS)
def test_a_full_queue_refuses_and_finishes_what_it_took(start: Start, path: str) -> None:
    server = start(limits={"queue": 2})
    taken = [HalfSent(server.address, path, body(path)) for _ in range(2)]
    until(lambda: server.working() == 2)
    refused = server.post(path, body(path))
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert message(path, refused.json()) == "too many requests at once: try again"
    assert server.client.get("/health").status_code == 200
    assert [request.answer()[0] for request in taken] == [200, 200]
    until(lambda: server.working() == 0)
    assert server.post(path, body(path)).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_request_that_is_too_large_is_refused(start: Start, path: str) -> None:
    server = start(limits={"max_mb": 0.001})
    large = b'{"images": ["' + b"A" * 100_000 + b'"]}'
    for content in (large, iter([large[:500], large[500:]])):  # with its length in the header, and without
        answer = server.post(path, content=content)
        assert answer.status_code == 413
        assert message(path, answer.json()) == "the request is larger than 0.001 MB"
    assert server.client.get("/health").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_request_that_does_not_come_to_its_end_is_given_up(
    start: Start, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.2)
    server = start()
    slow = HalfSent(server.address, path, body(path))
    status, answer = slow.answer_without_an_end()
    assert status == 408
    assert "to come" in message(path, answer)
    until(lambda: server.working() == 0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", "secret", "Basic secret", "Bearer secret2", "Bearer sécret"]
)
def test_a_token_is_wanted(start: Start, path: str, given: str | None) -> None:
    server = start(token="secret")
    headers = {} if given is None else {"Authorization": given.encode()}
    answer = server.post(path, body(path), headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "token" in message(path, answer.json())


def test_with_the_token_all_is_answered(start: Start) -> None:
    server = start(token="sécret ")
    headers = {"Authorization": "Bearer sécret ".encode()}
    # The host and the origin do not count then: a page that knows the token may ask.
    headers |= {"Host": b"evil.example", "Origin": b"https://evil.example"}
    raw = {"Authorization": "Bearer sécret".encode()}
    assert server.client.get("/health").status_code == 200
    for path in ("/metrics", "/docs", "/openapi.json", "/", "/v1/models", "/api/tags"):
        assert server.client.get(path).status_code == 401
        assert server.client.get(path, headers=raw).status_code == 401
    server = start(token="secret")
    headers["Authorization"] = b"Bearer secret"
    assert server.post("/caption", body("/caption"), headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            (name, 200)
            for name in ("127.0.0.1:1234", "localhost", "LOCALHOST:1", "[::1]:5", "192.168.1.5", "captioner")
        ),
        *(
            (name, 200)
            for name in ("nas.local", "nas.lan:80", "host.docker.internal", "photos.example.org", "localhost.")
        ),
        *(
            (name, 403)
            for name in ("evil.example", "127.0.0.1.evil.example", "evil.example:11434", "photos.example.org.evil")
        ),
        *((name, 403) for name in ("[::1", "a.b:c", "evil.example.")),
    ],
)
def test_names_of_the_internet_are_refused(start: Start, host: str, status: int) -> None:
    """A page could let its own name point to this machine, and then read the answers (DNS rebinding)."""
    server = start(hosts=["photos.example.org"])
    answer = server.client.get("/v1/models", headers={"Host": host})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example", 403), ("null", 403), ("http://[", 403), ("https://photos.example.org", 200), (None, 200)],
)
def test_pages_of_other_servers_are_refused(start: Start, origin: str | None, status: int) -> None:
    server = start(hosts=["photos.example.org"])
    headers = {} if origin is None else {"Origin": origin}
    answer = server.client.post("/caption", files={"image": jpeg()}, headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers
    own = server.client.post("/caption", files={"image": jpeg()}, headers={"Origin": server.address})
    assert own.status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/api/nothing", "/v1/nothing", "/api/pull", "/v1/embeddings"])
def test_what_is_not_there_is_said_in_the_dialect(server: Running, path: str) -> None:
    answer = server.post(path, {})
    assert answer.status_code == 404
    assert message(path, answer.json())
    assert server.client.get("/caption").status_code == 405


@pytest.mark.parametrize("path", PATHS)
def test_a_failure_of_ours_is_said_in_the_dialect_and_logged(
    start: Start, path: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = start()

    def broken(*_: object) -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(server.service, "ask", broken)
    answer = server.post(path, body(path))
    assert answer.status_code == 500
    assert message(path, answer.json()) == "the server failed: its log says why"
    assert "a secret of the server" in capfd.readouterr().err


@pytest.mark.parametrize("prefix", ["", "/photos/captions"])
def test_behind_a_proxy_with_a_prefix(start: Start, prefix: str) -> None:
    """Some proxies take the prefix away, others leave it."""
    server = start(root_path="/photos/captions")
    assert server.client.get(f"{prefix}/health").status_code == 200
    assert server.post(f"{prefix}/caption", body("/caption")).status_code == 200
    wrong = server.post(f"{prefix}/v1/chat/completions", {"model": "captioner", "messages": []})
    assert message("/v1/", wrong.json()).startswith("no picture")
    assert server.client.get("/openapi.json").json()["servers"] == [{"url": "/photos/captions"}]


def test_a_client_that_goes_away_harms_nobody(server: Running) -> None:
    host, _, port = server.address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
        until(lambda: server.working() == 1)
    until(lambda: server.working() == 0)
    assert server.post("/caption", body("/caption")).status_code == 200
