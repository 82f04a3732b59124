"""captioner caption: a sentence for each picture, printed or written to files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from captioner.cli.arguments import add_checkpoint, add_decode_options, add_prompt, chosen, positive
from captioner.options import FILE_FORMATS, DecodeOptions


class _Moved(argparse.Action):
    """--runner, which is a command today."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        if values != "local":
            parser.exit(
                2, f"captioner: error: the runner {values} is now a command: captioner cluster PATH... --output DIR\n"
            )


ABOUT = {
    "help": "write a sentence for each picture",
    "usage": "captioner caption PATH... [options]",
    "description": "Write a sentence for each picture: PATH<TAB>caption lines on stdout, unless told otherwise.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    inputs = parser.add_argument_group("pictures")
    inputs.add_argument("paths", metavar="PATH", nargs="+", help="files, folders, patterns, or - for a list on stdin")
    inputs.add_argument("-r", "--recursive", action="store_true", help="also look into the subfolders of folders")
    output = parser.add_argument_group("output")
    names = "text, jsonl, csv, coco, html, or sidecar: photo.txt beside photo.jpg [text]"
    output.add_argument("-f", "--format", choices=FILE_FORMATS, default="text", metavar="NAME", help=names)
    output.add_argument("-o", "--output", metavar="FILE", help="write to this file instead of stdout")
    output.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    output.add_argument("--overwrite", action="store_true", help="replace sidecar files that exist already")
    output.add_argument("--prefix", default="", metavar="TEXT", help="text to put before each sidecar caption")
    output.add_argument("--suffix", default="", metavar="TEXT", help="text to put after each sidecar caption")
    output.add_argument("--coco-images", type=Path, metavar="FILE", help="JSON file with the image ids for coco")
    output.add_argument("-q", "--quiet", action="store_true", help="print no progress and no summary, only failures")
    add_prompt(parser)
    add_decode_options(parser)
    model = parser.add_argument_group("model")
    add_checkpoint(model)
    model.add_argument("--batch-size", type=positive, default=32, metavar="N", help="pictures encoded at once [32]")
    model.add_argument("--runner", action=_Moved, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Caption everything; 1 when a picture failed."""
    options: DecodeOptions = chosen(DecodeOptions, args)
    from captioner.bulk.progress import Progress
    from captioner.bulk.run import caption_files
    from captioner.inference.captioner import load

    names = ("format", "prompt", "recursive", "batch_size", "resume", "overwrite", "prefix", "suffix", "coco_images")
    summary = caption_files(
        args.paths,
        args.output,
        **{name: getattr(args, name) for name in names},
        options=options,
        model=lambda: load(args.checkpoint, args.device, args.precision, args.engine),
        stdin=sys.stdin,
        progress=Progress(args.quiet),
    )
    if summary.failed and not args.quiet and (args.output or args.format == "sidecar"):
        print("captioner: the same command with --resume tries the failed ones again", file=sys.stderr)
    return 1 if summary.failed else 0
