"""captioner serve: captions over HTTP, for apps that speak to Ollama or OpenAI."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from captioner.cli.arguments import add_model, add_options, add_wording, load_model, picked
from captioner.errors import DeviceError, counted, to_install
from captioner.options import DecodeOptions, ServeOptions, parse_options

ABOUT = {
    "help": "answer apps that ask for captions over HTTP",
    "description": "Answer requests for captions until Ctrl-C or SIGTERM ends it: POST /caption, and what apps ask of "
    "Ollama and of OpenAI. It serves this machine only, and keeps no pictures.",
}
TOKEN = "CAPTIONER_TOKEN"
_NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


def require_server() -> None:
    """Raise DeviceError without the packages of the server."""
    if not all(map(find_spec, _NEEDED)):
        raise DeviceError(f"the server needs FastAPI and uvicorn: {to_install('serve')}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    place = parser.add_argument_group("who is answered")
    host = "the address to listen on; 0.0.0.0 lets other machines in [127.0.0.1]"
    place.add_argument("--host", default="127.0.0.1", help=host)
    place.add_argument("--port", type=int, default=11434, help="the port to listen on; 0: any free one [11434]")
    token = f"answer only those who send it: Authorization: Bearer TOKEN [${TOKEN}]"
    place.add_argument("--token", default=os.environ.get(TOKEN, ""), help=token)
    allowed = "a name by which browsers may call the server; can be given several times"
    place.add_argument("--allow-host", action="append", default=[], metavar="NAME", dest="hosts", help=allowed)
    root_path = "the prefix of a proxy that serves it as https://example.org/PREFIX"
    place.add_argument("--root-path", default="", metavar="/PREFIX", help=root_path)
    what = parser.add_argument_group("what is taken")
    folder = "requests may name pictures in this folder and its subfolders"
    what.add_argument("--folder", metavar="DIR", type=Path, help=folder)
    add_options(what, ServeOptions)
    add_wording(parser)
    add_model(parser.add_argument_group("model"))


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes; then 0."""
    require_server()
    options: DecodeOptions = parse_options(DecodeOptions, vars(args))
    limits: ServeOptions = parse_options(ServeOptions, vars(args))
    from captioner.server.run import serve

    def ready(address: str) -> None:
        print(f"captioner: serving at {address}, described at {address}/docs; Ctrl-C ends it", file=sys.stderr)
        if not args.token and args.host not in ("localhost", "127.0.0.1", "::1"):
            print("captioner: note: whoever reaches this machine may use it: --token asks for one", file=sys.stderr)

    given = picked(args, "prompt", "host", "port", "token", "folder", "root_path", "hosts")
    answered = serve(partial(load_model, args), options=options, limits=limits, ready=ready, **given)
    print(f"captioner: {counted(answered, 'request')} answered", file=sys.stderr)
    return 0
