"""captioner data: examine captions and pictures before training, or make a set to try things on."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from captioner.cli.arguments import add_data, add_options, picked
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

ABOUT = {"help": "check captions and pictures, or make some to try"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of both actions."""
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
