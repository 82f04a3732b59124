"""captioner caption: sentences for files, folders and patterns."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.cli.arguments import (
    HelpFormatter,
    add_checkpoint,
    add_decode_options,
    add_prompt,
    chosen,
    positive,
)
from captioner.errors import OptionError, OutputError
from captioner.options import DecodeOptions

if TYPE_CHECKING:
    from captioner.bulk.journal import Journal
    from captioner.bulk.progress import Progress
    from captioner.inference.results import FileResult

FORMATS = ("text", "jsonl", "csv", "coco", "sidecar", "html")


def add_parser(commands: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "caption",
        help="write a sentence for each picture",
        usage="captioner caption PATH... [options]",
        description="Write a sentence for each picture: PATH<TAB>caption lines on stdout, unless told otherwise.",
        formatter_class=HelpFormatter,
    )
    inputs = parser.add_argument_group("pictures")
    inputs.add_argument("paths", metavar="PATH", nargs="+", help="files, folders, patterns, or - for a list on stdin")
    inputs.add_argument("-r", "--recursive", action="store_true", help="also look into the subfolders of folders")
    output = parser.add_argument_group("output")
    output.add_argument(
        "-f", "--format", choices=(*FORMATS, "parquet"), help="sidecar: photo.txt beside photo.jpg; ray: parquet, jsonl"
    )
    output.add_argument(
        "-o", "--output", type=_place, metavar="FILE", help="write there instead of to stdout; ray: a folder"
    )
    output.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    output.add_argument("--overwrite", action="store_true", help="replace sidecar files that are there already")
    output.add_argument("--prefix", default="", metavar="TEXT", help="put before each sidecar caption")
    output.add_argument("--suffix", default="", metavar="TEXT", help="put after each sidecar caption")
    output.add_argument("--coco-images", type=Path, metavar="FILE", help="JSON with the picture ids for coco")
    output.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary; failures are still named")
    add_prompt(parser)
    add_decode_options(parser)
    model = parser.add_argument_group("model")
    add_checkpoint(model)
    model.add_argument("--batch-size", type=positive, default=32, metavar="N", help="pictures encoded at once [32]")
    model.add_argument(
        "--runner",
        choices=("local", "ray"),
        default="local",
        help="ray: on the cluster at RAY_ADDRESS, or here; also of *.tar, *.parquet, s3://... [local]",
    )
    model.add_argument(
        "--workers", type=positive, metavar="N", help="of ray's, with the model in each [a CPU's or GPU's]"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Caption everything; 1 when a picture failed."""
    options: DecodeOptions = chosen(DecodeOptions, args)
    if args.runner == "ray":
        from captioner.cli import cluster as caption_ray

        return caption_ray.run(args, options)
    args.format = args.format or "text"
    _check_usage(args)
    from captioner.bulk.progress import Progress
    from captioner.inference.captioner import load
    from captioner.inference.results import row_of
    from captioner.network.header import find_checkpoint
    from captioner.pictures.find import find_pictures

    paths = find_pictures(args.paths, args.recursive, sys.stdin)
    checkpoint = find_checkpoint(args.checkpoint)
    if args.format == "sidecar" or args.output:
        return _to_files(args, options, paths, checkpoint)
    render = _renderer(args, options, paths)
    progress = Progress(len(paths), args.quiet)
    results = load(checkpoint, args.device, args.precision, args.engine).caption_files(
        paths, options, args.batch_size, prompt=args.prompt
    )
    for piece in render(row for row in progress.watch(map(row_of, results)) if "error" not in row):
        sys.stdout.write(piece)
    return progress.finish()


def _place(text: str) -> Path | str:
    """A file or folder, or an address, whose two slashes a Path would not keep."""
    return text if "://" in text else Path(text)


def _check_usage(args: argparse.Namespace) -> None:
    sidecar = args.format == "sidecar"
    only_ray = {"--workers": args.workers, "--format parquet": args.format == "parquet"}
    only_ray["an address as --output"] = isinstance(args.output, str)
    for what, given in only_ray.items():
        if given:
            raise OptionError(f"{what} goes with --runner ray only")
    if sidecar and args.output:
        raise OptionError("sidecar files go beside their pictures: leave out --output")
    if args.resume and not (sidecar or args.output):
        raise OptionError("--resume needs --output FILE: what goes to stdout cannot be gone on with")
    for flag in ("prefix", "suffix", "overwrite"):
        if getattr(args, flag) and not sidecar:
            raise OptionError(f"--{flag} goes with --format sidecar only")
    if args.coco_images and args.format != "coco":
        raise OptionError("--coco-images goes with --format coco only")
    if args.output and args.output.is_dir():
        raise OptionError(f"{args.output}: is a folder; give a file name")


def _renderer(args: argparse.Namespace, options: DecodeOptions, paths: list[str]) -> Any:
    """The function from rows to text. Raises DataError at once when a picture has no id, or two share one."""
    from captioner.bulk.formats import writer
    from captioner.data.names import image_id, read_image_ids

    ids = read_image_ids(args.coco_images) if args.coco_images else None
    if args.format == "coco":
        owner: dict[int, str] = {}
        for path in paths:
            other = owner.setdefault(image_id(path, ids), path)
            if other != path:
                raise OptionError(f"{path}: has the same COCO id as {other}: give --coco-images FILE")
    return writer(args.format, options.num_captions, ids)


def _to_files(args: argparse.Namespace, options: DecodeOptions, paths: list[str], checkpoint: Path) -> int:
    """Caption into the journal, skipping what is there; then render the output from it."""
    from captioner.bulk.formats import sidecar_paths, sidecar_text
    from captioner.bulk.journal import Journal
    from captioner.bulk.progress import Progress
    from captioner.files import replacing, sha256_of
    from captioner.inference.captioner import load
    from captioner.inference.openvino_engine import encoder_file

    sidecars = sidecar_paths(paths) if args.format == "sidecar" else {}
    render = None if sidecars else _renderer(args, options, paths)
    # Both before the journal is made, so that a wrong checkpoint or prompt leaves nothing.
    model = load(checkpoint, args.device, args.precision, args.engine)
    model.rules(options, args.prompt)
    settings = {
        "journal": 1,
        "checkpoint": sha256_of(checkpoint) if checkpoint.is_file() else str(checkpoint),
        "options": dataclasses.asdict(options),
        "batch_size": args.batch_size,
        # None is also what journals say from before there were prompts, or precisions other than float32.
        "prompt": args.prompt or None,
        "precision": None if model.precision == "float32" else model.precision,
        # Another export of the same checkpoint writes other captions.
        "engine": None if args.engine == "torch" else sha256_of(encoder_file(checkpoint).with_suffix(".bin")),
    }
    journal_path = _journal_path(args.output, paths)
    journal = Journal(journal_path, settings, args.resume)
    try:
        if not args.overwrite:
            _refuse_existing({path: file for path, file in sidecars.items() if not journal.captioned(path)})
        progress = Progress(len(paths), args.quiet)
        caption = partial(model.caption_files, options=options, batch_size=args.batch_size, prompt=args.prompt)
        _fill(journal, caption, paths, args.batch_size, progress)
        if render is None:
            for row in journal.rows(paths):
                with replacing(sidecars[row["path"]]) as file:
                    file.write(sidecar_text(row, args.prefix, args.suffix))
        else:
            with replacing(args.output) as file:
                for piece in render(journal.rows(paths)):
                    file.write(piece)
    except KeyboardInterrupt:
        journal.close()
        print(f"\ncaptioner: stopped; go on with the same command and --resume ({journal_path})", file=sys.stderr)
        return 130
    except OutputError:
        journal.close(remove=not args.resume)
        raise
    journal.close(remove=not progress.failed)
    status = progress.finish()
    if status and not args.quiet:
        print("captioner: the same command with --resume tries the failed ones again", file=sys.stderr)
    return status


def _journal_path(output: Path | None, paths: list[str]) -> Path:
    """Beside the output; for sidecars in the folder that holds all pictures."""
    if output:
        return output.with_name(output.name + ".journal")
    return Path(os.path.commonpath([Path(path).absolute().parent for path in paths])) / ".captioner.journal"


def _refuse_existing(sidecars: dict[str, Path]) -> None:
    existing = [file for file in sidecars.values() if file.exists()]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise OutputError(f"{existing[0]}{more} would be replaced: add --overwrite if that is meant")


def _fill(
    journal: Journal,
    caption: Callable[[Iterable[str]], Iterator[FileResult]],
    paths: list[str],
    size: int,
    progress: Progress,
) -> None:
    """Caption what the journal lacks, batch by batch.

    Batches are cut by position, and one that lacks anything is done again as a whole: a caption then never depends
    on where an earlier run stopped, as it might by the rounding of other batch sizes.
    """
    from captioner.inference.results import row_of

    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    missing = [batch for batch in batches if not all(map(journal.captioned, batch))]
    progress.skip(len(paths) - sum(map(len, missing)))
    rows = progress.watch(map(row_of, caption(path for batch in missing for path in batch)))
    for batch in missing:
        journal.append([next(rows) for _ in batch])
