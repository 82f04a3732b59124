"""captioner app: the web page."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from captioner.errors import DeviceError, OptionError, to_install

ABOUT = {
    "help": "open the web page",
    "description": "Open the web page in a browser. It serves this machine only and keeps no pictures.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--checkpoints", metavar="DIR", type=Path, help="also offer the checkpoints in this folder")
    parser.add_argument("--port", type=int, default=8501, help="the port to listen on [8501]")


def run(args: argparse.Namespace) -> int:
    """Serve the page until interrupted."""
    if args.checkpoints and not args.checkpoints.is_dir():
        raise OptionError(f"{args.checkpoints}: is not a folder, which --checkpoints needs")
    if not find_spec("streamlit"):
        raise DeviceError(f"the page needs Streamlit: {to_install('page')}")
    command = [sys.executable, "-m", "streamlit", "run", str(script()), "--server.port", str(args.port)]
    if args.checkpoints:
        command += ["--", "--checkpoints", str(args.checkpoints.resolve())]
    return subprocess.call(command)


def script() -> Path:
    """`app.py`, as it was installed or as it is in a clone. Streamlit finds the page's settings beside it."""
    package = Path(__file__).parent.parent
    installed = package / "page" / "start" / "app.py"
    return installed if installed.is_file() else package.parent / "app.py"
