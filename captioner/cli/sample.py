"""captioner sample: sentences from the language model alone, without a picture."""

from __future__ import annotations

import argparse
from typing import Any

from captioner.cli.arguments import HelpFormatter, add_checkpoint, add_decode_options, add_prompt, chosen
from captioner.options import DecodeOptions


def add_parser(commands: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "sample",
        help="write sentences without a picture",
        description="Write --num-captions sentences from the language model alone, without a picture: one per line, "
        "the best first. They are drawn at random unless --strategy says otherwise.",
        formatter_class=HelpFormatter,
    )
    add_prompt(parser)
    add_decode_options(parser, strategy="sample")
    add_checkpoint(parser.add_argument_group("model"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the sentences."""
    options: DecodeOptions = chosen(DecodeOptions, args)
    from captioner.inference.captioner import load

    for caption in load(args.checkpoint, args.device, args.precision, args.engine).sample(options, prompt=args.prompt):
        print(caption.text)
    return 0
