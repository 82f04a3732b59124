"""captioner export: write a checkpoint as ONNX files, for programs without torch, or as a page for browsers."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from captioner.cli.arguments import add_checkpoint
from captioner.errors import OptionError

_RUNTIME = Path("node_modules/onnxruntime-web/dist")  # where npm installs it

ABOUT = {
    "help": "write a checkpoint as ONNX files, for programs without torch, or as a page for browsers",
    "usage": "captioner export --output DIR [--checkpoint FILE] [--bits 32|16|8] [--images DIR]\n"
    "       captioner export --web DIR [--checkpoint FILE] [--runtime DIR]",
    "description": "Write a checkpoint as ONNX files into a folder: for --engine onnx, and for other programs, which "
    "then need neither torch nor captioner. Or write a page that captions pictures inside the browser, without a "
    'server: docs/browser.md. Needs: pip install "captioner[onnx]"',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    targets = parser.add_mutually_exclusive_group(required=True)
    targets.add_argument("--output", type=Path, metavar="DIR", help="the folder to write ONNX files to")
    targets.add_argument("--web", type=Path, metavar="DIR", help="the folder to write the page to, for any web server")
    add_checkpoint(parser)
    bits = "of each weight: with 16 the files are half as large, with 8 a quarter [32]"
    parser.add_argument("--bits", type=int, choices=(32, 16, 8), help=bits)
    images = "with --bits 8: some 100 pictures like yours, so that the encoder can compute in 8 bits, which is faster"
    parser.add_argument("--images", metavar="DIR", help=images)
    runtime = f"with --web: the folder dist of onnxruntime-web, from npm [{_RUNTIME}]"
    parser.add_argument("--runtime", type=Path, metavar="DIR", help=runtime)


def run(args: argparse.Namespace) -> int:
    """Export the checkpoint, and say how to use it. Raises OptionError for options of the other kind of export."""
    if args.web:
        return _web(args)
    if args.runtime:
        raise OptionError("the runtime is for a page: give --web DIR, or leave --runtime out")
    from captioner.export.folder import export_model
    from captioner.pictures.find import find_pictures

    pictures = find_pictures([args.images]) if args.images else None
    print(folder := export_model(args.checkpoint, args.output, args.bits or 32, pictures))
    # A plain name could also be that of a shipped checkpoint.
    named = shlex.quote(str(folder) if folder.parts[1:] else f".{os.sep}{folder}")
    print(f"captioner: use it with --checkpoint {named}", file=sys.stderr)
    return 0


def _web(args: argparse.Namespace) -> int:
    from captioner.export.web import export_web

    for name in ("bits", "images"):
        if getattr(args, name):
            raise OptionError(f"{name} has no effect on a page, whose model has 8 bits: leave --{name} out")
    print(folder := export_web(args.checkpoint, args.web, args.runtime or _RUNTIME))
    print(f"captioner: look at it with python3 -m http.server --directory {folder}", file=sys.stderr)
    return 0
