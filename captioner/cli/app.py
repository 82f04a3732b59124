"""captioner app: the web page."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from captioner.cli.arguments import HelpFormatter


def add_parser(commands: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "app",
        help="open the web page",
        description="Open the web page in a browser. It listens to this machine only, and keeps no picture.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--checkpoints", metavar="DIR", type=Path, help="offer the checkpoints of this folder, too")
    parser.add_argument("--port", type=int, default=8501, help="port to listen on [8501]")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    if args.checkpoints and not args.checkpoints.is_dir():
        raise NotADirectoryError(20, "is not a folder", str(args.checkpoints))
    command = [sys.executable, "-m", "streamlit", "run", str(script()), "--server.port", str(args.port)]
    if args.checkpoints:
        command += ["--", "--checkpoints", str(args.checkpoints.resolve())]
    return subprocess.call(command)


def script() -> Path:
    """`app.py`, beside which Streamlit also finds the page's settings: installed, or in a clone."""
    package = Path(__file__).parent.parent
    installed = package / "page" / "start" / "app.py"
    return installed if installed.is_file() else package.parent / "app.py"
