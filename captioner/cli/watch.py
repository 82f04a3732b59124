"""captioner watch: captions for what comes into folders, until it is ended."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from functools import partial

from captioner.cli.arguments import add_many_pictures, add_model, add_options, load_model, picked, picked_many
from captioner.options import WATCH_FORMATS, MetadataOptions, parse_options

ABOUT = {
    "help": "caption pictures as they come into folders",
    "usage": "captioner watch PATH... [options]",
    "description": "Caption the pictures that folders hold, then those that come, until Ctrl-C or SIGTERM ends it.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    output, model = add_many_pictures(parser, "folders; if one of several is not there yet, it is waited for")
    names = "xmp (photo.jpg.xmp), sidecar (photo.txt), embed; with -o text, jsonl or csv [xmp, or FILE's suffix]"
    output.add_argument("-f", "--format", choices=WATCH_FORMATS, metavar="NAME", help=names)
    output.add_argument("-o", "--output", metavar="FILE", help="add to this file, instead of files beside the pictures")
    output.add_argument("--extension", default="", metavar="EXT", help="of sidecar files, such as .caption [.txt]")
    add_options(output, MetadataOptions, only=("xmp_name", "legacy", "backup", "keep_time"))
    watching = parser.add_argument_group("watching")
    settle = "a picture is complete when it has not changed for so many seconds [2]"
    watching.add_argument("--settle", type=float, default=2.0, metavar="SECONDS", help=settle)
    poll = "look so often, as on network disks [when the system tells of a change]"
    watching.add_argument("--poll", type=float, metavar="SECONDS", help=poll)
    nice = "let other programs go first, from 0 to 19, where the system can [10]"
    watching.add_argument("--nice", type=int, default=10, metavar="N", help=nice)
    add_model(model)


def run(args: argparse.Namespace) -> int:
    """Watch until a signal comes; then 0."""
    given = {
        **picked_many(args),
        **picked(args, "format", "settle", "poll", "extension"),
        "metadata": parse_options(MetadataOptions, vars(args)),
    }
    from captioner.bulk.watch import watch_folders

    stop = threading.Event()

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.default_int_handler)  # the second one ends it at once
        # In a thread of its own, because the main thread may hold the lock of the event.
        threading.Thread(target=stop.set).start()

    if hasattr(os, "nice"):
        os.nice(args.nice)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    watch_folders(args.paths, args.output, model=partial(load_model, args), stop=stop, **given)
    return 0
