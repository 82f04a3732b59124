"""captioner export: write the encoder for another engine than torch."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from captioner.cli.arguments import add_checkpoint

ABOUT = {
    "help": "make a checkpoint faster on servers without a GPU",
    "usage": "captioner export --images DIR --output FOLDER [--checkpoint FILE]",
    "description": "Write a checkpoint, and its encoder for --engine openvino, into a folder. "
    'Needs: pip install "captioner[openvino]"',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--images", metavar="DIR", required=True, help="some 300 typical pictures, to tune it on")
    parser.add_argument("--output", type=Path, metavar="FOLDER", required=True, help="the folder to write to")
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Export the encoder, and say how to use it."""
    from captioner.inference.openvino_engine import export_encoder
    from captioner.network.header import find_checkpoint
    from captioner.pictures.find import find_pictures

    checkpoint, pictures = find_checkpoint(args.checkpoint), find_pictures([args.images])
    with redirect_stdout(sys.stderr):  # nncf prints its progress
        copy = export_encoder(checkpoint, pictures, args.output)
    print(copy)
    print(f"captioner: use it with --engine openvino --checkpoint {copy}", file=sys.stderr)
    return 0
