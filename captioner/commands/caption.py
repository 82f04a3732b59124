"""captioner caption: sentences for files, folders and patterns."""

from __future__ import annotations

import argparse
from typing import Any

from captioner.commands.arguments import HelpFormatter


def add_parser(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser("caption", formatter_class=HelpFormatter)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return 0
