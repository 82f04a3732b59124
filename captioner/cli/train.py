"""captioner train: from pictures and captions to a checkpoint."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.cli.arguments import HelpFormatter, add_options
from captioner.errors import OptionError, one_line
from captioner.options import option_specs, parse_options
from captioner.training.config import TrainConfig

if TYPE_CHECKING:
    from captioner.data.splits import Split

_DECODER_STEPS, _END_TO_END_STEPS = 800, 400  # at least, unless the number of epochs is given


def add_parser(commands: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train a captioner on your own captions",
        usage="captioner train --captions FILE --images DIR --output RUN_DIR [options]",
        description="Train a captioner: first the decoder on the features of a frozen encoder, then both end to end, "
        "last the decoder on the CIDEr-D of captions that it draws itself.",
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
    begin = parser.add_argument_group("where it begins")
    begin.add_argument("--resume", action="store_true", help="go on with the interrupted run in RUN_DIR")
    begin.add_argument(
        "--init", metavar="FILE", help="a checkpoint, or its short name, to go on from with your captions' new words"
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
    from captioner.machine import keep_freed_memory
    from captioner.network.header import find_checkpoint
    from captioner.training import Start, train
    from captioner.training.start import FIXED

    if args.init:
        if args.encoder_weights:
            raise OptionError("--init brings its encoder along: leave out --encoder-weights")
        for name in FIXED:
            if name in given:
                raise OptionError(f"--init fixes {name}: leave out --{name.replace('_', '-')}")
    keep_freed_memory()
    start = Start(
        args.encoder_weights or _shipped_encoder(config, args), find_checkpoint(args.init) if args.init else None
    )
    # Taken out again, so that nothing here holds on to the text of all captions while the run goes on.
    split = [_split(args, config.seed)]
    if not args.config:
        config = _enough_epochs(config, split[0], given)
    checkpoint = train(config, split.pop(), args.output, start, args.resume, _say)
    if _first_process():
        print(checkpoint)
    _say(f"caption pictures with it: captioner caption PICTURE --checkpoint {checkpoint}")
    return 0


def _split(args: argparse.Namespace, seed: int) -> Split:
    """The pictures and captions to train on; says what is odd about them."""
    from captioner.data.captions import read_captions
    from captioner.data.splits import choose_split, same_content

    split = choose_split(read_captions(args.captions), args.images, args.train_list, args.val_list, seed)
    for note in split.notes:
        _say(f"captioner: {note}")
    both = same_content(split)
    if both:
        some = ", ".join(f"{one} = {other}" for one, other in both[:3]) + (", ..." if len(both) > 3 else "")
        _say(f"captioner: warning: the same pictures are in train and validation, {len(both)} pairs: {some}")
    return split


def _enough_epochs(config: TrainConfig, split: Split, given: Mapping[str, Any]) -> TrainConfig:
    """More epochs for a small set, where their number is not given: what counts is the number of steps."""
    captions = sum(len(example.captions) for example in split.train)
    steps = {
        "epochs": (_DECODER_STEPS, math.ceil(captions / config.batch_size)),
        "finetune_epochs": (_END_TO_END_STEPS, math.ceil(len(split.train) / config.finetune_batch_size)),
    }
    more = {
        name: max(getattr(config, name), math.ceil(least / max(1, an_epoch)))
        for name, (least, an_epoch) in steps.items()
        if name not in given
    }
    return dataclasses.replace(config, **more)


def _first_process() -> bool:
    """Whether this is the one of torchrun's processes that talks to people; true without torchrun."""
    return os.environ.get("RANK", "0") == "0"


def _say(line: str) -> None:
    if not _first_process():
        return
    from tqdm import tqdm

    tqdm.write(one_line(line), file=sys.stderr)
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
    from captioner.network.checkpoint import load_checkpoint
    from captioner.network.header import find_checkpoint

    if args.init:
        return None
    shipped = find_checkpoint()
    return shipped if load_checkpoint(shipped).model.config.encoder == config.encoder else None
