"""captioner data: examine captions and pictures before training, choose what to caption, or make a set to try."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

from captioner.cli.arguments import add_data, add_model, add_options, load_model, picked
from captioner.errors import counted
from captioner.options import parse_options
from captioner.training.config import TrainConfig

_TRAINING = ("tokens", "minimum_count", "seed")  # options of training that a survey has as well
_NEXT = """\
{pictures} pictures with 3 captions each are in {folder}. Look at them, train, and measure:

captioner data check {data} \\
    {lists}

captioner train {data} \\
    {lists} \\
    --output {output} \\
    --epochs 30 --finetune-epochs 4 --image-size 96 --hidden-size 128 --embedding-size 64 \\
    --minimum-count 1 --batch-size 32

captioner evaluate {data} \\
    --split-list {val} \\
    --checkpoint {checkpoint}"""

ABOUT = {"help": "check captions and pictures, choose what to caption next, or make a set to try"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of all actions."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    checking: argparse.ArgumentParser = actions.add_parser(
        "check",
        help="show what a set contains, what is wrong with it, and what training would see",
        description="The exit status is 1 if pictures are missing, cannot be read, or are in both parts of the split.",
    )
    data = checking.add_argument_group("data")
    add_data(data)
    add_options(data, TrainConfig, only=_TRAINING)
    checking.set_defaults(run=check)
    about = "choose the pictures to caption by hand next, from which a model learns most"
    told = "Choose the pictures of whose captions the model is least sure, of all kinds, as csv with its captions."
    following: argparse.ArgumentParser = actions.add_parser("next", help=about, description=told)
    following.add_argument("paths", metavar="PATH", nargs="+", help="folders, files or patterns")
    following.add_argument("-r", "--recursive", action="store_true", help="also look into the subfolders of folders")
    following.add_argument("-n", dest="number", type=int, default=50, metavar="N", help="how many pictures [50]")
    into = "csv to add to, with captions to correct, instead of stdout; pictures that it holds are left out"
    following.add_argument("-o", "--output", metavar="FILE", help=into)
    everything = "also pictures for which a person has written a caption"
    following.add_argument("--all", action="store_true", dest="everything", help=everything)
    add_model(following.add_argument_group("model"))
    following.set_defaults(run=choose)
    about = "draw coloured shapes with captions, to try everything without a download"
    making: argparse.ArgumentParser = actions.add_parser("make-shapes", help=about)
    making.add_argument("folder", type=Path, metavar="DIR", help="folder for images/, captions and split lists")
    making.add_argument("--language", choices=("en", "zh"), default="en", help="language of the captions [en]")
    number = "number of pictures, a fifth to validate on [270]"
    making.add_argument("--pictures", type=int, default=270, metavar="N", help=number)
    making.add_argument("--seed", type=int, default=0, metavar="N", help="each seed gives other pictures [0]")
    making.set_defaults(run=make)
    about = "draw pictures that are no ordinary photographs, to see what a captioner says of them"
    unfamiliar: argparse.ArgumentParser = actions.add_parser("make-unfamiliar", help=about)
    unfamiliar.add_argument("folder", type=Path, metavar="OUTPUT", help="a folder for OUTPUT/KIND/NUMBER.png")
    number = "pictures of every kind [20]"
    unfamiliar.add_argument("--number", type=int, default=20, metavar="N", help=number)
    damaged = "photographs to damage, as upside-down and blurred [two samples]"
    unfamiliar.add_argument("--images", type=Path, metavar="DIR", help=damaged)
    unfamiliar.set_defaults(run=make_others)


def check(args: argparse.Namespace) -> int:
    """Print what is known of a set. The status is 1 if something is wrong with it."""
    config: TrainConfig = parse_options(TrainConfig, vars(args))
    from captioner.data.survey import check_data
    from captioner.inference.progress import watched

    given = {**picked(args, "train_list", "val_list"), **picked(config, *_TRAINING)}
    survey = check_data(args.captions, args.images, **given, progress=watched)
    print("\n".join(survey.lines()))
    return 0 if survey.ok else 1


def choose(args: argparse.Namespace) -> int:
    """Print or write the pictures to caption next; 1 when one could not be read."""
    from captioner.bulk.progress import Progress
    from captioner.bulk.propose import propose
    from captioner.bulk.run import note_subfolders
    from captioner.inference.progress import watched

    given = {**picked(args, "number", "everything", "recursive"), "model": partial(load_model, args)}
    note_subfolders(args.paths, args.recursive, Progress())
    failed: list[str] = []
    given |= {"progress": watched, "say": failed.append}
    found = propose(args.paths, args.output or sys.stdout, **given)
    print(*failed, sep="\n", end="\n" * bool(failed), file=sys.stderr)
    if args.output:
        print(f"captioner: {counted(len(found), 'picture')} to caption added to {args.output}", file=sys.stderr)
    return 1 if failed else 0


def make(args: argparse.Namespace) -> int:
    """Make a set of shapes, and print the commands to go on with."""
    from captioner.data.shapes import make_shapes

    made = make_shapes(args.folder, args.pictures, args.seed, language=args.language)
    files = (*made, args.folder / "run", args.folder / "run" / "best.safetensors")
    captions, images, train, val, output, checkpoint = (shlex.quote(str(file)) for file in files)
    data, lists = f"--captions {captions} --images {images}", f"--train-list {train} --val-list {val}"
    print(_NEXT.format(**vars(args), data=data, lists=lists, val=val, output=output, checkpoint=checkpoint))
    return 0


def make_others(args: argparse.Namespace) -> int:
    """Make pictures that are no ordinary photographs, and print how many."""
    from captioner.pictures.find import find_pictures
    from captioner.pictures.unfamiliar import DAMAGES, KINDS, make_unfamiliar

    files = make_unfamiliar(args.folder, args.number, find_pictures([str(args.images)]) if args.images else ())
    print(f"{len(files)} pictures of {len(KINDS) + len(DAMAGES)} kinds are in {args.folder}.")
    return 0
