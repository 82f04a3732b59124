"""captioner apply: captions that a person corrected in a file, put where the pictures have theirs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from captioner.cli.arguments import add_options, picked
from captioner.errors import one_line
from captioner.options import APPLY_FORMATS, MetadataOptions, parse_options

ABOUT = {
    "help": "write the captions of a file that you corrected beside or into the pictures",
    "usage": "captioner apply FILE -f NAME [options], or captioner apply FILE -f alt DOCUMENT...",
    "description": "Put the captions of FILE, which `captioner caption` or `captioner read` wrote and you edited, "
    "beside or into their pictures. What you changed counts as written by you, so later runs keep it.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", metavar="FILE", help="csv, jsonl or text, as edited in a spreadsheet or an editor")
    documents = "for alt: Markdown, HTML, EPUB, or folders"
    parser.add_argument("documents", metavar="DOCUMENT", nargs="*", default=[], help=documents)
    names = "xmp (photo.jpg.xmp), sidecar (photo.txt), embed (into the pictures) or alt (into documents)"
    parser.add_argument("-f", "--format", choices=APPLY_FORMATS, required=True, metavar="NAME", help=names)
    where = "where the pictures are, if not where FILE says or beside it"
    parser.add_argument("--images", metavar="DIR", help=where)
    parser.add_argument("--extension", default="", metavar="EXT", help="of sidecar files, such as .caption [.txt]")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be written, and where")
    parser.add_argument("-q", "--quiet", action="store_true", help="print no summary, only what could not be done")
    add_options(parser, MetadataOptions)


def run(args: argparse.Namespace) -> int:
    """Put all captions in their places; 1 when one could not be."""
    metadata: MetadataOptions = parse_options(MetadataOptions, vars(args))
    from captioner.bulk.apply import apply_captions

    given = picked(args, "format", "documents", "images", "extension", "dry_run")
    done = apply_captions(Path(args.file), **given, metadata=metadata)
    if args.dry_run:
        sys.stdout.writelines("\t".join(map(one_line, row)) + "\n" for row in done.written)
    other = "its text file says something else" if args.format == "sidecar" else "a person's other caption is there"
    kept = f"kept, because {other}; --overwrite-edited replaces it"
    undone = [*(f"{path}: {kept}" for path in done.kept), *(f"{name}: not found" for name in done.missing)]
    notes = [] if args.quiet else [f"note: {note}" for note in done.notes]
    for line in (*notes, *undone, *done.failed):
        print(f"captioner: {one_line(line)}", file=sys.stderr)
    if not args.quiet:
        there = "for which no document has a gap" if args.format == "alt" else "as they were"
        counts = (
            (len(done.written), "to write" if args.dry_run else "written"),
            (done.same, there),
            (done.skipped, "skipped, which captioner left empty"),
            (len(done.kept), "kept"),
            (len(done.missing), "not found"),
            (len(done.failed), "failed"),
        )
        shown = ", ".join(f"{number:,} {what}" for number, what in counts if number or what in ("written", "to write"))
        print(f"captioner: {shown}", file=sys.stderr)
    return 1 if undone or done.failed else 0
