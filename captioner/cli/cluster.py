"""captioner cluster: sentences for very many pictures, by many workers."""

from __future__ import annotations

import argparse
import sys

from captioner.cli.arguments import add_decode_options, add_prompt, chosen, positive
from captioner.options import PRECISIONS, SHARD_FORMATS, DecodeOptions

ABOUT = {
    "help": "caption very many pictures with Ray",
    "usage": "captioner cluster PATH... --output DIR [options]",
    "description": "Write captions into a folder of shards, with many workers of Ray Data on this machine, or on the "
    'cluster at the address in RAY_ADDRESS. Needs on every machine: pip install "captioner[ray]"',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    inputs = parser.add_argument_group("pictures")
    inputs.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="files, folders, patterns, *.tar, *.parquet, addresses such as s3://..., or - for a list on stdin",
    )
    inputs.add_argument("-r", "--recursive", action="store_true", help="also look into the subfolders of folders")
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", required=True, metavar="DIR", help="a new folder, or its address")
    output.add_argument("-f", "--format", choices=SHARD_FORMATS, default="parquet", help="of the shards [parquet]")
    output.add_argument("-q", "--quiet", action="store_true", help="print no progress and no summary, only failures")
    add_prompt(parser)
    add_decode_options(parser)
    model = parser.add_argument_group("model")
    model.add_argument(
        "--checkpoint", metavar="FILE", help="a file, or a name that `captioner models` lists [flickr8k]"
    )
    model.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="GPUs if there are any [auto]")
    model.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: chosen by each processor [auto]")
    model.add_argument("--batch-size", type=positive, default=32, metavar="N", help="pictures encoded at once [32]")
    model.add_argument("--workers", type=positive, metavar="N", help="processes with a model each [one a CPU or GPU]")


def run(args: argparse.Namespace) -> int:
    """Caption everything; 1 when a picture failed."""
    options: DecodeOptions = chosen(DecodeOptions, args)
    from captioner.bulk.cluster import caption_on_cluster
    from captioner.bulk.progress import Progress

    names = ("format", "prompt", "checkpoint", "device", "precision", "workers", "recursive", "batch_size")
    given = {name: getattr(args, name) for name in names}
    progress = Progress(args.quiet)
    summary = caption_on_cluster(args.paths, args.output, **given, options=options, stdin=sys.stdin, progress=progress)
    return 1 if summary.failed else 0
