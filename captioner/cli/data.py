"""captioner data: examine captions and pictures before training, or make a set to try things on."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from captioner.cli.arguments import add_options, chosen, positive
from captioner.training.config import TrainConfig

_TRAINING = ("tokens", "minimum_count", "seed")  # options of training that a survey has as well


ABOUT = {"help": "check captions and pictures, or make some to try"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of both actions."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_check(actions)
    _add_make_shapes(actions)


def _add_check(actions: Any) -> None:
    parser: argparse.ArgumentParser = actions.add_parser(
        "check",
        help="show what a set contains, what is wrong with it, and what training would see",
        description="The exit status is 1 if pictures are missing, cannot be read, or are in both parts of the split.",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--captions", type=Path, required=True, metavar="FILE", help="captions in any common layout")
    data.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures named there")
    data.add_argument("--train-list", type=Path, metavar="FILE", help="names of the pictures to learn from")
    data.add_argument("--val-list", type=Path, metavar="FILE", help="names of the pictures to validate on")
    add_options(data, TrainConfig, only=_TRAINING)
    parser.set_defaults(run=check)


def _add_make_shapes(actions: Any) -> None:
    parser: argparse.ArgumentParser = actions.add_parser(
        "make-shapes",
        help="draw coloured shapes with captions, to try everything without a download",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder for images/, captions and split lists")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="language of the captions [en]")
    parser.add_argument(
        "--pictures", type=positive, default=270, metavar="N", help="number of pictures, a fifth to validate on [270]"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="each seed gives other pictures [0]")
    parser.set_defaults(run=make)


def check(args: argparse.Namespace) -> int:
    """Print what is known of a set. The status is 1 if something is wrong with it."""
    config: TrainConfig = chosen(TrainConfig, args)
    from tqdm import tqdm

    from captioner.data.survey import check_data

    survey = check_data(
        args.captions,
        args.images,
        train_list=args.train_list,
        val_list=args.val_list,
        **{name: getattr(config, name) for name in _TRAINING},
        progress=partial(tqdm, unit=" pictures", disable=None, leave=False),
    )
    print("\n".join(survey.lines()))
    return 0 if survey.ok else 1


def make(args: argparse.Namespace) -> int:
    """Make a set of shapes, and print the commands to go on with."""
    from captioner.data.shapes import make_shapes

    captions, images, train_list, val_list = make_shapes(args.folder, args.pictures, args.seed, language=args.language)
    data = f"--captions {_quoted(captions)} --images {_quoted(images)}"
    lists = f"--train-list {_quoted(train_list)} --val-list {_quoted(val_list)}"
    print(f"{args.pictures} pictures with 3 captions each are in {args.folder}. Look at them, train, and measure:\n")
    print(f"captioner data check {data} \\\n    {lists}\n")
    print(f"captioner train {data} \\\n    {lists} \\\n    --output {_quoted(args.folder / 'run')} \\")
    print("    --epochs 30 --finetune-epochs 4 --image-size 96 --hidden-size 128 --embedding-size 64 \\")
    print("    --minimum-count 1 --batch-size 32\n")
    print(f"captioner evaluate {data} \\\n    --split-list {_quoted(val_list)} \\")
    print(f"    --checkpoint {_quoted(args.folder / 'run' / 'best.safetensors')}")
    return 0


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
