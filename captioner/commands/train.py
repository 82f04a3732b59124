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
    data.add_argument(
        "--captions", type=Path, required=True, metavar="FILE", help="what people wrote, in any common layout"
    )
    data.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures named there")
    data.add_argument("--train-list", type=Path, metavar="FILE", help="names of the pictures to learn from")
    data.add_argument(
        "--val-list", type=Path, metavar="FILE", help="names of those to validate on [the captions file's, or a tenth]"
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
    from captioner.data import choose_split, read_captions, same_content
    from captioner.training import train

    split = choose_split(read_captions(args.captions), args.images, args.train_list, args.val_list, config.seed)
    keep_freed_memory()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    for note in split.notes:
        say(f"captioner: {note}")
    both = same_content(split)
    if both:
        some = ", ".join(f"{one} = {other}" for one, other in both[:3]) + (", ..." if len(both) > 3 else "")
        say(f"captioner: warning: the same pictures are in train and validation, {len(both)} pairs: {some}")
    checkpoint = train(config, split, args.output, args.encoder_weights, say)
    print(checkpoint)
    say(f"caption pictures with it: captioner caption PICTURE --checkpoint {checkpoint}")
    return 0
