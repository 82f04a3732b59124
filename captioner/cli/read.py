"""captioner read: the captions that pictures have already, inside or beside them."""

from __future__ import annotations

import argparse
import sys

from captioner.cli.arguments import add_pictures, picked
from captioner.options import PLACES, READ_FORMATS

ABOUT = {
    "help": "show the captions that pictures have already",
    "usage": "captioner read PATH... [options]",
    "description": "Show the captions that are in XMP sidecar files, inside pictures, and in text files beside them: "
    "PATH<TAB>caption lines on stdout, unless told otherwise.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pictures(parser, "files, folders, patterns, or - for a list on stdin")
    output = parser.add_argument_group("output")
    output.add_argument("-q", "--quiet", action="store_true", help="print no summary, only failures")
    names = f"{', '.join(READ_FORMATS)} [by FILE's suffix]"
    output.add_argument("-f", "--format", choices=READ_FORMATS, metavar="NAME", help=names)
    output.add_argument("-o", "--output", metavar="FILE", help="write to this file; rows that are there already stay")
    output.add_argument("--overwrite", action="store_true", help="replace FILE")
    only = "look here only: xmp (sidecar files), embedded (in the pictures), text (.txt, .caption); may be repeated"
    output.add_argument("--from", action="append", choices=PLACES, metavar="PLACE", dest="places", help=only)


def run(args: argparse.Namespace) -> int:
    """Show everything; 1 when a picture's captions could not be read."""
    from captioner.bulk.progress import Progress
    from captioner.bulk.read import read_files

    given = {
        **picked(args, "format", "recursive", "overwrite"),
        "places": args.places or PLACES,
        "stdin": getattr(sys.stdin, "buffer", sys.stdin),
        "progress": Progress(args.quiet),
    }
    return 1 if read_files(args.paths, args.output, **given).failed else 0
