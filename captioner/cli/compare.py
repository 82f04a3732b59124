"""captioner compare: is the difference between two evaluations chance?"""

from __future__ import annotations

import argparse
from pathlib import Path

ABOUT = {
    "help": "compare two evaluations: is the difference chance?",
    "description": "Print the scores of two evaluations of the same pictures, with 95 % intervals of the difference.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("first", type=Path, metavar="A.json", help="written by `captioner evaluate --json`")
    parser.add_argument("second", type=Path, metavar="B.json", help="the same for other captions")


def run(args: argparse.Namespace) -> int:
    """Print the comparison as a table."""
    from captioner.evaluation.compare import compare, difference_table

    print(difference_table(compare(args.first, args.second)))
    print(f"\nA: {args.first}\nB: {args.second}")
    print("95 % interval: paired bootstrap over pictures, 1000 resamples; beyond chance where it leaves out 0")
    return 0
