"""captioner alt: alternative text for the pictures of web pages and documents."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from captioner.cli.arguments import add_checkpoint, picked
from captioner.errors import counted, one_line

if TYPE_CHECKING:
    from captioner.documents.gaps import Gap

ABOUT = {
    "help": "find pictures without alternative text in web pages and documents, and fill it in",
    "usage": "captioner alt PATH... [--check | --write] [options]",
    "description": "List the pictures without alternative text in Markdown, HTML and EPUB, as FILE:LINE:COLUMN.",
}
_SAYS = {
    "lacking": "no alternative text",
    "decorative": 'no alternative text; it looks decorative: alt="" would say so',
    "titled": "no alternative text; left to you",
    "vector": "no alternative text; left to you",
    "remote": "no alternative text; not fetched",
    "missing": "no alternative text; the picture is missing",
    "unreadable": "no alternative text; the picture cannot be read",
    "template": "no alternative text; left to you",
    "unsure": "left to you, because the model is unsure",
    "written": "filled in",
}
_FAILED = ("missing", "unreadable")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    paths = "documents, or folders, which are searched with their subfolders"
    parser.add_argument("paths", metavar="PATH", nargs="+", help=paths)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="exit with status 1 if there is any such picture")
    what.add_argument("--write", action="store_true", help="fill in captions of which the model is sure enough")
    parser.add_argument("--decorative", action="store_true", help='with --write: also alt="" where it looks right')
    parser.add_argument("--fetch", action="store_true", help="with --write: also pictures on the web")
    sure = "with --write: how sure the model must be, from 0 to 1 [0.5]"
    parser.add_argument("--min-confidence", type=float, default=argparse.SUPPRESS, metavar="X", help=sure)
    formats = "text, json, or github, which shows the list at the lines of a pull request [text]"
    parser.add_argument("-f", "--format", choices=_FORMATS, default="text", metavar="NAME", help=formats)
    parser.add_argument("-q", "--quiet", action="store_true", help="print no progress and no summary, only failures")
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> int:
    """List or fill in; the status is 1 if something failed, and for a check also if there is anything to do."""
    from captioner.bulk.alt import alt_texts
    from captioner.inference.progress import watched

    given = picked(args, "write", "decorative", "fetch", "checkpoint", *({"min_confidence"} & vars(args).keys()))
    found = alt_texts(args.paths, **given, progress=iter if args.quiet else watched)
    _FORMATS[args.format](found.gaps)
    for error in found.errors:
        print(f"captioner: {error}", file=sys.stderr)
    if not args.quiet:
        left = [gap for gap in found.gaps if gap.state != "written"]
        filled = f"{len(found.gaps) - len(left)} filled in, " if args.write else ""
        pictures = counted(len(left), "picture")
        where = counted(found.documents, "document")
        print(f"captioner: {filled}{pictures} without alternative text, in {where}", file=sys.stderr)
    failed = args.write and any(gap.state in _FAILED or (args.fetch and gap.state == "remote") for gap in found.gaps)
    return 1 if found.errors or failed or (args.check and found.gaps) else 0


def _message(gap: Gap) -> str:
    details = [gap.note] if gap.note else []
    if gap.text is not None:
        details.append(repr(gap.text))
    return f"{gap.picture}: {_SAYS[gap.state]}{' (' if details else ''}{', '.join(details)}{')' if details else ''}"


def _text(gaps: list[Gap]) -> None:
    for gap in gaps:
        print(one_line(f"{gap.document}:{gap.line}:{gap.column}: {_message(gap)}"))


def _json(gaps: list[Gap]) -> None:
    rows = ",\n".join(json.dumps(gap.to_dict()) for gap in gaps)
    print(f"[{rows}]")


def _github(gaps: list[Gap]) -> None:
    """Workflow commands, see "Workflow commands for GitHub Actions" in GitHub's documentation."""
    for gap in gaps:
        file = _escaped(os.path.normpath(gap.document)).replace(":", "%3A").replace(",", "%2C")
        print(f"::error file={file},line={gap.line},col={gap.column}::{_escaped(_message(gap))}")


def _escaped(text: str) -> str:
    return one_line(text).replace("%", "%25")


_FORMATS = {"text": _text, "json": _json, "github": _github}
