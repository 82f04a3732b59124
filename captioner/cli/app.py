"""captioner app: the web page."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from captioner.cli.serve import TOKEN, require_server
from captioner.errors import DeviceError, OptionError, one_line, to_install

ABOUT = {
    "help": "open the web page",
    "description": "Open the web page in a browser. It serves this machine only and keeps no pictures. "
    'With --folder, its view "Many pictures" is where you correct the captions of that folder, saved as you go.',
}
_ALL_ADDRESSES = ("0.0.0.0", "::")
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--checkpoints", metavar="DIR", type=Path, help="also offer the checkpoints in this folder")
    folder = "correct captions of the pictures in this folder and its subfolders; on this machine only"
    parser.add_argument("--folder", metavar="DIR", type=Path, help=folder)
    place = "where the captions of --folder go: XMP sidecar files, text files, or into the pictures [xmp]"
    parser.add_argument("--format", choices=("xmp", "sidecar", "embed"), help=place)
    host = "the address to listen on; 0.0.0.0 lets other machines in [localhost]"
    parser.add_argument("--host", default="localhost", help=host)
    parser.add_argument("--port", type=int, default=8501, help="the port to listen on [8501]")
    serve = "also answer apps on this port, as `captioner serve` does, in the same process"
    parser.add_argument("--serve", type=int, metavar="PORT", help=serve)
    base_path = "the path of the page, for a proxy that serves it as https://example.org/PATH"
    parser.add_argument("--base-path", metavar="PATH", default="", help=base_path)


def run(args: argparse.Namespace) -> int:
    """Serve the page until interrupted."""
    if args.checkpoints and not args.checkpoints.is_dir():
        raise OptionError(f"{args.checkpoints}: is not a folder, which --checkpoints needs")
    if not find_spec("streamlit"):
        raise DeviceError(f"the page needs Streamlit: {to_install('page')}")
    _check_folder(args)
    base_path = args.base_path.strip("/")
    if not re.fullmatch(r"([\w.~-]+(/[\w.~-]+)*)?", base_path, re.ASCII):
        remedy = "give a path such as captions, of letters, digits and . _ ~ - /"
        raise OptionError(f"--base-path {args.base_path}: {remedy}")
    _check_free(args.host, args.port)
    if args.serve is not None:
        require_server()
        _check_free("127.0.0.1", args.serve)
    host = "localhost" if args.host in _ALL_ADDRESSES else f"[{args.host}]" if ":" in args.host else args.host
    view = ("/folder" if base_path else "folder") if args.folder else ""
    others = ", also from other machines" if args.host in _ALL_ADDRESSES else ""
    address = f"http://{host}:{args.port}/{base_path}{view}"
    print(f"captioner: the page is at {address}{others}; Ctrl-C ends it", file=sys.stderr)
    settings = {"server.address": args.host, "server.port": args.port, "server.baseUrlPath": base_path}
    # Streamlit's own welcome would ask a server on the internet for this machine's address.
    settings["logger.hideWelcomeMessage"] = "true"
    sys.argv = ["streamlit", "run", str(script()), *(f"--{name}={value}" for name, value in settings.items())]
    given = {"checkpoints": args.checkpoints, "folder": args.folder}
    own = [word for name, path in given.items() if path for word in (f"--{name}", str(path.resolve()))]
    if own:
        sys.argv += ["--", *own, *(["--format", args.format] if args.format else [])]
    # In this process, so that a signal that ends it ends the server.
    with _serving(args.serve, args.folder) if args.serve is not None else nullcontext():
        runpy.run_module("streamlit", run_name="__main__")
    return 0


@contextmanager
def _serving(port: int, folder: Path | None) -> Iterator[None]:
    """Meanwhile, answer apps on another port. At the end, first answer what was taken."""
    from captioner.server.run import serve

    stop, token = threading.Event(), os.environ.get(TOKEN, "")
    answer = partial(serve, port=port, folder=folder, token=token, ready=_say_where, stop=stop)
    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _say_where(address: str) -> None:
    print(f"captioner: apps are answered at {address}, described at {address}/docs", file=sys.stderr, flush=True)


def _check_folder(args: argparse.Namespace) -> None:
    """Raise OptionError for a folder that cannot be opened, or that other machines could reach."""
    if args.format and not args.folder:
        raise OptionError("--format says where captions go: it needs --folder")
    if args.folder and args.host not in _THIS_MACHINE:
        raise OptionError(f"--folder opens pictures to this machine only: leave out --host {one_line(args.host)}")
    if args.folder and not args.folder.is_dir():
        raise OptionError(f"{args.folder}: no such folder, which --folder needs")
    if args.folder:
        from captioner.metadata import embedded
        from captioner.pictures.find import find_pictures

        find_pictures([str(args.folder)], recursive=True)
        if args.format == "embed":
            embedded.require()


def _check_free(host: str, port: int) -> None:
    """Raise OptionError where the server could not listen."""
    if not 1 <= port <= 65535:
        raise OptionError(f"--port {port}: a port is a number from 1 to 65535")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            if os.name == "posix":  # as the server does it: a port whose last connections are closing is free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not an address of this machine"
        raise OptionError(
            f"cannot listen on {one_line(host)}, port {port} ({reason}): choose another --port or --host"
        ) from error


def script() -> Path:
    """`app.py`, as it was installed or as it is in a clone. Streamlit finds the page's settings beside it."""
    package = Path(__file__).parent.parent
    installed = package / "page" / "start" / "app.py"
    return installed if installed.is_file() else package.parent / "app.py"
