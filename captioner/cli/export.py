"""captioner export: write a checkpoint as ONNX files, for programs without torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from captioner.cli.arguments import add_checkpoint

ABOUT = {
    "help": "write a checkpoint as ONNX files, for programs without torch",
    "usage": "captioner export --output DIR [--checkpoint FILE] [--bits 32|16|8] [--images DIR]",
    "description": "Write a checkpoint as ONNX files into a folder: for --engine onnx, and for other programs, which "
    'then need neither torch nor captioner. Needs: pip install "captioner[onnx]"',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write to")
    add_checkpoint(parser)
    bits = "of each weight: with 16 the files are half as large, with 8 a quarter [32]"
    parser.add_argument("--bits", type=int, choices=(32, 16, 8), default=32, help=bits)
    images = "with --bits 8: some 100 pictures like yours, so that the encoder can compute in 8 bits, which is faster"
    parser.add_argument("--images", metavar="DIR", help=images)


def run(args: argparse.Namespace) -> int:
    """Export the checkpoint, and say how to use it."""
    from captioner.export.folder import export_model
    from captioner.pictures.find import find_pictures

    pictures = find_pictures([args.images]) if args.images else None
    print(folder := export_model(args.checkpoint, args.output, args.bits, pictures))
    print(f"captioner: use it with --engine onnx --checkpoint {folder}", file=sys.stderr)
    return 0
