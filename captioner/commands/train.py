"""captioner train: from pictures and captions to a checkpoint."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from captioner.commands.arguments import HelpFormatter, add_options
from captioner.options import OptionError, TrainConfig, option_specs, parse_options


def add_parser(commands: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train a captioner on your own captions",
        usage="captioner train --captions FILE --images DIR --output RUN_DIR [options]",
        description="Train a captioner: first the decoder on the features of a frozen encoder, then both end to end.",
        formatter_class=HelpFormatter,
    )
    data = parser.add_argument_group("data")
    data.add_argument("--captions", type=Path, required=True, metavar="FILE", help="captions in any common form")
    data.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures named there")
    data.add_argument("--train-list", type=Path, metavar="FILE", help="names of the pictures to learn from")
    data.add_argument(
        "--val-list", type=Path, metavar="FILE", help="names of the pictures to validate on [a random tenth]"
    )
    data.add_argument("--output", type=Path, required=True, metavar="RUN_DIR", help="folder for all that is made")
    begin = parser.add_argument_group("where it begins")
    begin.add_argument("--resume", action="store_true", help="go on with the interrupted run in RUN_DIR")
    begin.add_argument(
        "--init", type=Path, metavar="FILE", help="a checkpoint to go on from, with the new words of your captions"
    )
    begin.add_argument(
        "--encoder-weights",
        type=Path,
        metavar="FILE",
        help="torchvision .pth or checkpoint to start the encoder from [the shipped checkpoint, or torchvision's]",
    )
    begin.add_argument("--config", type=Path, metavar="FILE", help="config.json of a run: the options that it had")
    add_options(parser.add_argument_group("training"), TrainConfig)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train; print the path of the checkpoint."""
    given = {spec.name: vars(args)[spec.name] for spec in option_specs(TrainConfig) if spec.name in vars(args)}
    config: TrainConfig = parse_options(TrainConfig, {**(_read_config(args.config) if args.config else {}), **given})
    from captioner.allocator import keep_freed_memory
    from captioner.data import (
        DataError,
        Split,
        find_examples,
        present_names,
        random_split,
        read_captions,
        read_split_list,
    )
    from captioner.files import sha256_of
    from captioner.training import Start, train
    from captioner.training.warm_start import FIXED

    if args.init:
        if args.encoder_weights:
            raise OptionError("--init brings its encoder along: leave out --encoder-weights")
        for name in FIXED:
            if name in given:
                raise OptionError(f"--init fixes {name}: leave out --{name.replace('_', '-')}")
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
    start = Start(args.encoder_weights or _shipped_encoder(config, args), args.init)
    checkpoint = train(config, split, args.output, start, args.resume, _say)
    print(checkpoint)
    _say(f"caption pictures with it: captioner caption PICTURE --checkpoint {checkpoint}")
    return 0


def _say(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def _read_config(file: Path) -> dict[str, Any]:
    """The options in a run's config.json. Raises OptionError."""
    try:
        options = json.loads(file.read_text(encoding="utf-8"))["train"]
        unknown = options.keys() - {spec.name for spec in option_specs(TrainConfig)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OptionError(f"{file}: not the config.json of a run ({error})") from error
    if unknown:
        raise OptionError(f"{file}: this version has no option {min(unknown)}")
    return dict(options)


def _shipped_encoder(config: TrainConfig, args: argparse.Namespace) -> Path | None:
    """The shipped checkpoint where its encoder is the one asked for: it needs no download and knows photographs."""
    from captioner.checkpoint import load_checkpoint, shipped_checkpoint

    if args.init:
        return None
    shipped = shipped_checkpoint()
    return shipped if load_checkpoint(shipped).model.config.encoder == config.encoder else None
