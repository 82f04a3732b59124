"""Start a server, and end it without losing a request that it took: `serve`."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.errors import OptionError, one_line
from captioner.options import DecodeOptions, ServeOptions

if TYPE_CHECKING:  # it takes long to import, for which what is wrong need not wait
    from captioner.inference.captioner import Captioner

HOST, PORT = "127.0.0.1", 11434  # the port on which apps look for Ollama
_GRACE = 120  # seconds for the requests that are being answered when the server is to end
_KEEP_ALIVE = 75  # seconds that a connection stays open for the next request


def serve(
    model: Captioner | Callable[[], Captioner] | None = None,
    *,
    options: DecodeOptions | None = None,
    prompt: str = "",
    limits: ServeOptions | None = None,
    host: str = HOST,
    port: int = PORT,
    token: str = "",
    folder: str | Path | None = None,
    root_path: str = "",
    hosts: Collection[str] = (),
    ready: Callable[[str], object] = lambda address: None,
    stop: threading.Event | None = None,
) -> int:
    """Answer requests for captions over HTTP until SIGTERM or Ctrl-C; what `captioner serve` does.

        captioner.serve(port=8080, token="secret")

    `options` and `prompt` hold where a request gives none, and `limits` says how much the server takes at once. It
    listens to this machine only, unless `host` is another address; port 0 is any free one. With a `token`, only those
    who know it are answered. With a `folder`, requests may name pictures in it. `root_path` is the prefix of a proxy,
    and `hosts` are names by which browsers may call the server. `ready` is told the address once the server listens.
    In a thread that is not the main one, it ends when `stop` is set.
    At the end it answers the requests that it took, and returns how many it has answered.
    Raises OptionError for what cannot be, CheckpointError and DeviceError.
    """
    folder = Path(folder) if folder is not None else None
    if folder is not None and not folder.is_dir():
        raise OptionError(f"{one_line(folder)}: no such folder, which folder (--folder) needs")
    if root_path and (not root_path.startswith("/") or root_path.endswith("/")):
        raise OptionError(f"root_path (--root-path) must be like /captioner, not {one_line(root_path)}")
    with _listening(host, port) as listener:
        from captioner.inference.captioner import load

        loaded = model() if callable(model) else model or load()
        import uvicorn

        from captioner.server.app import application
        from captioner.server.service import Service

        service = Service(loaded, options, prompt, limits, folder)
        app = application(service, token, root_path, {*hosts, host})
        quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
        times: dict[str, Any] = {"timeout_keep_alive": _KEEP_ALIVE, "timeout_graceful_shutdown": _GRACE}
        config = uvicorn.Config(app, proxy_headers=False, ws="none", **quiet, **times)
        name, number = listener.getsockname()[:2]
        server = uvicorn.Server(config)
        end = partial(setattr, server, "should_exit", True)
        if stop:
            threading.Thread(target=lambda: stop.wait() and end(), daemon=True).start()
        with _signals(end):
            ready(f"http://{f'[{name}]' if ':' in name else name}:{number}{root_path}")
            server.run(sockets=[listener])
    return service.answered


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OptionError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not an address of this machine"
        remedy = "choose another port (--port) or host (--host)"
        raise OptionError(f"cannot listen on {one_line(host)}, port {port} ({reason}): {remedy}") from error


@contextlib.contextmanager
def _signals(end: Callable[[], object]) -> Iterator[None]:
    """What SIGINT and SIGTERM do before and after uvicorn listens to them.

    When all is answered, uvicorn raises the signal that ended it again. That is the end asked for, and no failure.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: end()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
