"""captioner sample: sentences from the language model alone, without a picture."""

from __future__ import annotations

import argparse

from captioner.cli.arguments import add_model, add_wording, load_model
from captioner.options import DecodeOptions, parse_options

ABOUT = {
    "help": "write sentences without a picture",
    "description": "Write --num-captions sentences from the language model alone, without a picture: one per line, "
    "the best first. They are drawn at random unless --strategy says otherwise.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_wording(parser, strategy="sample")
    add_model(parser.add_argument_group("model"))


def run(args: argparse.Namespace) -> int:
    """Print the sentences."""
    options: DecodeOptions = parse_options(DecodeOptions, vars(args))
    for caption in load_model(args).sample(options, prompt=args.prompt):
        print(caption.text)
    return 0
