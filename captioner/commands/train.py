"""captioner train: from pictures and captions to a checkpoint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from captioner.commands.arguments import HelpFormatter, add_options, chosen
from captioner.options import TrainConfig


def add_parser(commands: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train a captioner on your own captions",
        description="Train a captioner: first the decoder on the features of a frozen encoder, then both end to end.",
        formatter_class=HelpFormatter,
    )
    data = parser.add_argument_group("data")
    data.add_argument("--captions", type=Path, required=True, metavar="FILE", help="NAME.jpg#0<TAB>caption lines")
    data.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures named there")
    data.add_argument("--train-list", type=Path, metavar="FILE", help="names of the pictures to learn from")
    data.add_argument(
        "--val-list", type=Path, metavar="FILE", help="names of the pictures to validate on [a random tenth]"
    )
    data.add_argument("--output", type=Path, required=True, metavar="RUN_DIR", help="folder for all that is made")
    data.add_argument(
        "--encoder-weights",
        type=Path,
        metavar="FILE",
        help="torchvision .pth, or one of our checkpoints, to start the encoder from [torchvision's download]",
    )
    add_options(parser.add_argument_group("training"), TrainConfig)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train; print the path of the checkpoint."""
    config: TrainConfig = chosen(TrainConfig, args)
    from captioner.allocator import keep_freed_memory
    from captioner.data import (
        DataError,
        find_examples,
        present_names,
        random_split,
        read_captions,
        read_split_list,
    )
    from captioner.files import sha256_of
    from captioner.training import Split, train

    if args.val_list and not args.train_list:
        raise DataError("--val-list needs --train-list beside it")
    captions = read_captions(args.captions)
    train_names = read_split_list(args.train_list) if args.train_list else present_names(captions, args.images)
    if args.val_list:
        validation_names = read_split_list(args.val_list)
    else:
        train_names, validation_names = random_split(train_names, config.seed)
    both = set(train_names) & set(validation_names)
    if both:
        raise DataError(f"{len(both)} pictures are in both split lists, such as {min(both)}")
    origin = {
        "captions": args.captions.name,
        "sha256": sha256_of(args.captions),
        "train_pictures": len(train_names),
        "validation_pictures": len(validation_names),
    }
    split = Split(
        find_examples(captions, args.images, train_names),
        find_examples(captions, args.images, validation_names),
        origin,
    )
    keep_freed_memory()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    checkpoint = train(config, split, args.output, args.encoder_weights, say)
    print(checkpoint)
    say(f"caption pictures with it: captioner caption PICTURE --checkpoint {checkpoint}")
    return 0
