"""captioner caption: a sentence for each picture, printed or written to files."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from captioner.cli.arguments import (
    add_index,
    add_many_pictures,
    add_model,
    add_options,
    load_model,
    picked,
    picked_many,
)
from captioner.errors import OptionError
from captioner.options import FILE_FORMATS, MetadataOptions, parse_options

ABOUT = {
    "help": "write a sentence for each picture",
    "usage": "captioner caption PATH... [options]",
    "description": "Write a sentence for each picture: PATH<TAB>caption lines on stdout, unless told otherwise.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    output, model = add_many_pictures(parser, "files, folders, patterns, or - for a list or a picture on stdin")
    names = "text, jsonl, csv, coco, html, sidecar (photo.txt), xmp (photo.jpg.xmp), embed [by FILE]"
    formats = output.add_mutually_exclusive_group()
    formats.add_argument("-f", "--format", choices=FILE_FORMATS, metavar="NAME", help=names)
    into_pictures = "the same as --format embed: write into the pictures; needs the extra [metadata]"
    formats.add_argument("--embed", action="store_const", const="embed", dest="format", help=into_pictures)
    into = "write to this file instead of stdout; captions that are there already stay"
    output.add_argument("-o", "--output", metavar="FILE", help=into)
    output.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    output.add_argument("--overwrite", action="store_true", help="replace captions that exist already")
    output.add_argument("--dry-run", action="store_true", help="only list the pictures that would get captions")
    output.add_argument("--extension", default="", metavar="EXT", help="of sidecar files, such as .caption [.txt]")
    output.add_argument("--prefix", default="", metavar="TEXT", help="text to put before each sidecar caption")
    output.add_argument("--suffix", default="", metavar="TEXT", help="text to put after each sidecar caption")
    output.add_argument("--coco-images", type=Path, metavar="FILE", help="JSON file with the image ids for coco")
    add_options(output, MetadataOptions)
    add_model(model)
    add_index(model).add_argument("--no-index", action="store_false", dest="index", help="encode all pictures anew")
    model.add_argument("--runner", type=_refuse_cluster, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Caption everything; 1 when a picture failed."""
    names = ("format", "resume", "overwrite", "dry_run", "coco_images", "extension", "prefix", "suffix", "index")
    given = {
        **picked_many(args),
        **picked(args, *names),
        "metadata": parse_options(MetadataOptions, vars(args)),
        "stdin": getattr(sys.stdin, "buffer", sys.stdin),
    }
    from captioner.bulk.run import caption_files

    summary = caption_files(args.paths, args.output, model=partial(load_model, args), **given)
    return 1 if summary.failed else 0


def _refuse_cluster(runner: str) -> None:
    """The type of --runner, for which there is a command now. It says so whatever else was given."""
    if runner != "local":
        raise OptionError(f"the runner {runner} is now a command: captioner cluster PATH... --output DIR")
