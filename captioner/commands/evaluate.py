"""captioner evaluate: how good the captions are, in numbers that others can compare."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from captioner.commands.arguments import HelpFormatter, add_checkpoint, add_decode_options, chosen
from captioner.options import DecodeOptions


def add_parser(commands: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="measure captions against those that people wrote",
        description="Caption pictures and compare with what people wrote: corpus BLEU-1 to 4, 0 to 100.",
        formatter_class=HelpFormatter,
    )
    data = parser.add_argument_group("data")
    data.add_argument("--captions", type=Path, required=True, metavar="FILE", help="NAME.jpg#0<TAB>caption lines")
    data.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures named there")
    data.add_argument("--split-list", type=Path, metavar="FILE", help="names of the pictures to evaluate on [all]")
    data.add_argument("--json", type=Path, metavar="FILE", help="also write the scores there")
    add_checkpoint(data)
    add_decode_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Caption, score, print."""
    options: DecodeOptions = chosen(DecodeOptions, args)
    from captioner.data import find_examples, present_names, read_captions, read_split_list
    from captioner.evaluation import score_captions
    from captioner.files import replacing
    from captioner.inference import load

    captions = read_captions(args.captions)
    names = read_split_list(args.split_list) if args.split_list else present_names(captions, args.images)
    examples = find_examples(captions, args.images, names)
    model = load(args.checkpoint, args.device)
    written = model.caption_batch([example.path for example in examples], options)
    scores = score_captions([caption.text for caption in written], [example.captions for example in examples])
    for name, value in scores.items():
        print(f"{name}\t{value:.2f}" if isinstance(value, float) else f"{name}\t{value}")
    if args.json:
        with replacing(args.json) as file:
            json.dump(scores, file, indent=2)
        print(f"captioner: wrote {args.json}", file=sys.stderr)
    return 0
