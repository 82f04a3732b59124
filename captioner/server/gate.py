"""What every request meets first: who may ask, how much at once, and errors in the dialect of the one who asks."""

from __future__ import annotations

import asyncio
import hmac
import sys
import time
import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captioner.errors import one_line
from captioner.server.messages import Json
from captioner.server.service import Service

PATIENCE = 60.0  # seconds in which the whole of a request must have come
RETRY_AFTER = "1"  # second
# Names that no page of the internet can have. A name without a dot is one of the local network, or of a container.
_LOCAL = ("localhost", "local", "internal", "lan", "home.arpa")
_OPENAI_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error"}
_OPENAI_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


def error(scope: Scope, status: int, message: str, headers: Mapping[str, str] | None = None) -> Json:
    """An error as the dialect of the path that was asked for writes it."""
    if not path_of(scope).startswith("/v1/"):
        return Json({"error": message}, status, headers)
    kind = _OPENAI_TYPES.get(status, "invalid_request_error")
    about = {"message": message, "type": kind, "param": None, "code": _OPENAI_CODES.get(status)}
    return Json({"error": about}, status, headers)


def path_of(scope: Scope) -> str:
    """The path without the prefix of a proxy."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path


class Gate:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, service: Service, token: str, root_path: str, hosts: Collection[str]) -> None:
        self._app, self._service, self._token, self._root_path = app, service, token, root_path
        self._hosts = {host.lower() for host in hosts}
        self._max_bytes = round(service.limits.max_mb * 1e6)
        self._working = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or let it in and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["root_path"] = self._root_path
        started, status, path = time.perf_counter(), 0, path_of(scope)

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        is_work, limited = scope["method"] == "POST", self._limited(receive)
        try:
            self._check(scope, path, is_work)
        except HTTPException as refused:
            with suppress(HTTPException):  # of `limited`
                while (await limited()).get("more_body"):  # a client that is still sending would not read the answer
                    pass
            await error(scope, refused.status_code, refused.detail, refused.headers)(scope, receive, sent)
        else:
            self._working += is_work
            self._service.working.set(self._working)
            try:
                await self._app(scope, limited, sent)
            except ClientDisconnect:
                pass  # nobody is there to be told
            except Exception:
                traceback.print_exc(file=sys.stderr)
                if not status:
                    await error(scope, 500, "the server failed: its log says why")(scope, receive, sent)
            finally:
                self._working -= is_work
                self._service.working.set(self._working)
        if status:
            self._service.count(scope, status, time.perf_counter() - started if is_work else None)

    def _check(self, scope: Scope, path: str, is_work: bool) -> None:
        """Raise HTTPException for a request that may not come in. Nothing of its body has been read yet."""
        headers = Headers(scope=scope)
        if self._token:
            given = headers.get("authorization", "").encode()
            if path != "/health" and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                raise HTTPException(401, "this server wants its token: Authorization: Bearer TOKEN", _CHALLENGE)
        else:  # a page of the internet knows no token, but without one it may ask by way of a visitor's browser
            host = headers.get("host", "")
            if not self._is_ours(host):
                name = one_line(_name(host))
                raise HTTPException(403, f"this server does not answer to {name!r}: --allow-host lets it")
            origin = headers.get("origin")
            if origin is not None and origin.partition("//")[2] != host and _name(origin) not in self._hosts:
                raise HTTPException(403, "this server does not answer pages of other servers")
        if is_work and self._working >= self._service.limits.queue:
            raise HTTPException(429, "too many requests at once: try again", {"Retry-After": RETRY_AFTER})
        if int(headers.get("content-length", "0")) > self._max_bytes:
            raise self._too_large()

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        if name in self._hosts or "." not in name or name.endswith(tuple(f".{end}" for end in _LOCAL)):
            return True
        try:
            return bool(ip_address(name))
        except ValueError:
            return False

    def _limited(self, receive: Receive) -> Receive:
        """Like `receive`, but only so many bytes, in so many seconds. What it raises, the application answers."""
        left, until, over = self._max_bytes, time.monotonic() + PATIENCE, False

        async def limited() -> Message:
            nonlocal left, over
            if over:
                return await receive()  # that the client has gone
            try:
                message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
            except asyncio.TimeoutError:
                raise HTTPException(408, f"the request took longer than {PATIENCE:.0f} s to come") from None
            left, over = left - len(message.get("body", b"")), not message.get("more_body", False)
            if left < 0:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the request is larger than {self._service.limits.max_mb:g} MB")


_CHALLENGE = {"WWW-Authenticate": "Bearer"}


def _name(host: str) -> str:
    """The name in a Host or an Origin header, without its port."""
    try:
        return (urlsplit(host if "//" in host else f"//{host}").hostname or "").rstrip(".")
    except ValueError:  # a wrong address in brackets
        return host + "."
