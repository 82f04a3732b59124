"""captioner train: from pictures and captions to a checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from captioner.cli.arguments import add_data, add_options, picked
from captioner.errors import DataError, one_line
from captioner.options import option_specs, parse_options
from captioner.training.config import FIXED_BY_INIT, Given, TrainConfig, read_run, refuse_fixed

ABOUT = {
    "help": "train a captioner on your own captions",
    "usage": "captioner train --captions FILE --images DIR --output RUN_DIR [options]\n"
    "       captioner train --resume --output RUN_DIR",
    "description": "Train a captioner in three stages: first the decoder alone on features of the encoder, then both "
    "end to end, last the decoder on the CIDEr-D of captions that it samples.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    data = parser.add_argument_group("data")
    add_data(data, required=False)
    data.add_argument("--output", type=Path, required=True, metavar="RUN_DIR", help="folder for everything written")
    text = "captions without pictures: JSON lines with a list of captions each, a .txt with one a line, or any captions"
    data.add_argument("--text", type=Path, metavar="FILE", help=text)
    begin = parser.add_argument_group("starting point")
    resume = "continue the interrupted run in RUN_DIR, with its data and options"
    begin.add_argument("--resume", action="store_true", help=resume)
    init = "continue from this checkpoint, or shipped model, with your captions' new words"
    begin.add_argument("--init", metavar="FILE", help=init)
    weights = "torchvision .pth or checkpoint with the encoder's first weights [a shipped checkpoint, or torchvision's]"
    begin.add_argument("--encoder-weights", type=Path, metavar="FILE", help=weights)
    config = "take data and options from the config.json of a run"
    begin.add_argument("--config", type=Path, metavar="FILE", help=config)
    add_options(parser, TrainConfig)


def run(args: argparse.Namespace) -> int:
    """Train; print the path of the checkpoint."""
    given = picked(args, *(spec.name for spec in option_specs(TrainConfig) if spec.name in args))
    paths = Given(**picked(args, *(field.name for field in fields(Given))))
    read: dict[str, Any] = {}
    if args.config:
        read, known = read_run(args.config)
        # Lists belong to the captions that they were given with.
        paths = paths.completed(replace(known, train_list=None, val_list=None) if args.captions else known)
    elif args.resume and (args.output / "config.json").is_file():
        read, _ = read_run(args.output)  # `train` takes the paths from there itself
    if paths.init:
        refuse_fixed(name for name in FIXED_BY_INIT if name in given)
        read = {name: value for name, value in read.items() if name not in FIXED_BY_INIT}
    config: TrainConfig = parse_options(TrainConfig, {**read, **given})
    files = (paths.captions, paths.images, paths.train_list, paths.val_list, paths.text)
    for path in files if paths.captions and paths.images else ():
        if path and not Path(path).exists():  # which need not wait for torch
            raise DataError(f"{path}: no such file or folder")
    from captioner.training.run import train

    checkpoint = train(output=args.output, config=config, **vars(paths), resume=args.resume, say=_say)
    if os.environ.get("RANK", "0") == "0":  # the first of torchrun's processes, or the only one
        print(checkpoint)
        _say(f"caption pictures with it: captioner caption PICTURE --checkpoint {checkpoint}")
    return 0


def _say(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(one_line(line), file=sys.stderr)
    sys.stderr.flush()
