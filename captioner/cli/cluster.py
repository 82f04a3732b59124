"""captioner caption --runner ray: the same sentences from many workers, as a folder of shards."""

from __future__ import annotations

import argparse
import sys

from captioner.errors import OptionError
from captioner.options import DecodeOptions

FORMATS = ("parquet", "jsonl")


def run(args: argparse.Namespace, options: DecodeOptions) -> int:
    """Caption everything; 1 when a picture failed."""
    _check_usage(args)
    from captioner.bulk.cluster import Job, caption_units, connected, share
    from captioner.bulk.progress import Progress
    from captioner.bulk.shards import Shards
    from captioner.bulk.sources import find_sources, units
    from captioner.inference.rules import Rules
    from captioner.network.checkpoint import load_checkpoint
    from captioner.network.header import find_checkpoint

    shards = Shards(str(args.output), args.format or FORMATS[0])
    work = list(units(find_sources(args.paths, args.recursive, sys.stdin), args.batch_size))
    if not work:
        raise OptionError("no pictures were given: every table is empty")
    checkpoint = find_checkpoint(args.checkpoint)
    # Here too, so that a wrong checkpoint or prompt is said at once, and leaves nothing.
    Rules.of(options, load_checkpoint(checkpoint).vocabulary, args.prompt)
    job = Job(checkpoint.read_bytes(), options, args.prompt, args.batch_size, args.precision)
    total = sum(unit["rows"] for unit in work) if all(unit["rows"] is not None for unit in work) else None
    progress = Progress(total, args.quiet)
    with connected():
        workers, threads, each = share(args.workers, args.device)
        if not args.quiet:
            progress.say(f"captioner: workers: {workers}, threads of each: {threads}, units of work: {len(work)}")
        shards.write(progress.watch(caption_units(work, job, workers, threads, each)))
    return progress.finish()


def _check_usage(args: argparse.Namespace) -> None:
    if not args.output:
        raise OptionError("--runner ray needs --output FOLDER, for shards of the result")
    if args.format not in (None, *FORMATS):
        raise OptionError(f"--runner ray writes {' or '.join(FORMATS)}, not {args.format}")
    for flag in ("resume", "overwrite", "prefix", "suffix", "coco_images"):
        if getattr(args, flag):
            raise OptionError(f"--{flag.replace('_', '-')} does not go with --runner ray")
    if args.engine != "torch":
        raise OptionError(f"--engine {args.engine} does not go with --runner ray")
    if args.device not in ("auto", "cpu", "cuda"):
        raise OptionError(f"--device {args.device} does not go with --runner ray, which deals GPUs out: cpu, or cuda")
