"""captioner find: pictures found by a sentence or by a picture, and those that are nearly the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from captioner.cli.arguments import add_index, add_model, picked
from captioner.errors import OptionError
from captioner.options import FIND_FORMATS

ABOUT = {
    "help": "find pictures by a sentence, or those that are nearly the same",
    "usage": "captioner find SENTENCE PATH... [options]\n"
    "       captioner find --like PICTURE PATH... [options]\n"
    "       captioner find --duplicates PATH... [options]",
    "description": "Rank pictures by how well a sentence describes them: PATH<TAB>score lines on stdout, best first. "
    "Pictures are encoded once, and then known by their content wherever they are.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    query = parser.add_argument_group("what to find")
    query.add_argument("words", metavar="SENTENCE", nargs="?", help='such as "a dog in the snow"')
    query.add_argument("--like", metavar="PICTURE", help="pictures that are similar to this one; no SENTENCE is needed")
    query.add_argument("--text", default="", metavar="SENTENCE", help="with --like: and that this describes")
    query.add_argument("--not", default="", metavar="SENTENCE", dest="without", help="and not this")
    query.add_argument("--duplicates", action="store_true", help="groups of pictures that are nearly the same")
    same = "from this similarity on, 0 to 1, pictures are nearly the same [0.88]"
    query.add_argument("--threshold", type=float, metavar="X", help=same)
    inputs = parser.add_argument_group("pictures")
    inputs.add_argument("paths", metavar="PATH", nargs="*", help="files, folders, patterns, or - for a list on stdin")
    inputs.add_argument("-r", "--recursive", action="store_true", help="also look into the subfolders of folders")
    output = parser.add_argument_group("output")
    output.add_argument("-n", "--number", type=int, default=20, metavar="N", help="of pictures [20]")
    output.add_argument("-q", "--quiet", action="store_true", help="print no progress and no notes, only failures")
    names = f"{', '.join(FIND_FORMATS)} [by FILE's suffix]"
    output.add_argument("-f", "--format", choices=FIND_FORMATS, metavar="NAME", help=names)
    output.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to this new file instead of stdout")
    model = parser.add_argument_group("model")
    add_model(model)
    add_index(model)


def run(args: argparse.Namespace) -> int:
    """Find pictures and print them; 1 when a picture could not be read."""
    text, paths = _meant(args)
    from captioner.bulk.find import SAME, check_output, open_index, write_matches
    from captioner.bulk.progress import Progress

    format = check_output(args.output, args.format)
    index = open_index(
        paths,
        **picked(args, "checkpoint", "device", "precision", "engine", "recursive"),
        index=None if args.index is True else args.index,
        sentences=(text, args.without),
        stdin=getattr(sys.stdin, "buffer", sys.stdin),
        progress=Progress(args.quiet),
    )
    if args.duplicates:
        groups = index.duplicates(SAME if args.threshold is None else args.threshold)
        found = [{**match.row(), "group": number} for number, group in enumerate(groups, 1) for match in group]
    else:
        found = [match.row() for match in index.find(text, args.number, like=args.like, without=args.without)]
    write_matches(found, args.output or sys.stdout, format)
    return 1 if index.failed else 0


def _meant(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The sentence and the paths. With --like and --duplicates, all that stands there are paths."""
    given = [args.words] if args.words is not None else []
    if args.duplicates and (args.like or args.text or args.without):
        raise OptionError("--duplicates goes with neither --like, --text nor --not")
    if args.threshold is not None and not args.duplicates:
        raise OptionError("--threshold goes with --duplicates")
    alone = args.like or args.duplicates
    if args.text and not alone:
        raise OptionError("--text goes with --like: without it, give the sentence before the pictures")
    text, paths = (args.text, given + args.paths) if alone else (args.words or "", args.paths)
    if not paths:
        example = "--duplicates photos/" if args.duplicates else '"a dog in the snow" photos/'
        raise OptionError(f"no pictures were given: captioner find {example}")
    return text, paths
