"""captioner cluster: sentences for very many pictures, by many workers."""

from __future__ import annotations

import argparse
import sys

from captioner.cli.arguments import add_checkpoint, add_many_pictures, picked, picked_many
from captioner.options import PRECISIONS, SHARD_FORMATS

ABOUT = {
    "help": "caption very many pictures with Ray",
    "usage": "captioner cluster PATH... --output DIR [options]",
    "description": "Write captions into a folder of shards, with many workers of Ray on this machine, or on the "
    'cluster at the address in RAY_ADDRESS. Needs on every machine: pip install "captioner[ray]"',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    paths = "files, folders, patterns, *.tar, *.parquet, addresses such as s3://..., or - for a list on stdin"
    output, model = add_many_pictures(parser, paths)
    output.add_argument("-o", "--output", required=True, metavar="DIR", help="a folder, or its address")
    output.add_argument("-f", "--format", choices=SHARD_FORMATS, default="parquet", help="of the shards [parquet]")
    vectors = "parquet also gets a column of vectors, by which a database finds pictures"
    output.add_argument("--index", action="store_true", help=vectors)
    again = "caption also pictures that have a caption in their tar or parquet file [it is kept]"
    output.add_argument("--recaption", action="store_true", help=again)
    add_checkpoint(model)
    model.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="GPUs if there are any [auto]")
    model.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: chosen by each processor [auto]")
    model.add_argument("--workers", type=int, metavar="N", help="processes with a model each [one a CPU or GPU]")


def run(args: argparse.Namespace) -> int:
    """Caption everything; 1 when a picture failed."""
    given = {
        **picked_many(args),
        **picked(args, "format", "checkpoint", "device", "precision", "workers", "index", "recaption"),
        "stdin": getattr(sys.stdin, "buffer", sys.stdin),
    }
    from captioner.bulk.cluster import caption_on_cluster

    summary = caption_on_cluster(args.paths, args.output, **given)
    return 1 if summary.failed else 0
