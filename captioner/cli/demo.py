"""captioner demo: a first caption, without any preparation."""

from __future__ import annotations

import argparse
import math

from captioner.errors import one_line

ABOUT = {
    "help": "caption example photographs, or your own",
    "description": "Show captions and their probabilities, for photographs that come with captioner or for your own.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("paths", metavar="PATH", nargs="*", help="files, folders or patterns [the examples]")


def run(args: argparse.Namespace) -> int:
    """Caption the pictures and show how sure the model is; 1 when a picture failed."""
    from captioner.inference.captioner import load
    from captioner.pictures.find import find_pictures
    from captioner.pictures.sample_pictures import SAMPLES

    failed, paths = 0, find_pictures(args.paths or list(map(str, SAMPLES.values())))
    for result in load().caption_files(paths):
        print(f"picture      {one_line(result.path)}")
        if not (caption := result.caption):
            failed += 1
            print(f"no caption   {result.error}\n")
            continue
        print(f"caption      {caption.text}")
        if caption.confidence is not None:
            doubt = f": {caption.unsure}" if caption.unsure else ""
            print(f"confidence   {100 * caption.confidence:.0f} % that it is right{doubt}")
        mean = f"{100 * caption.mean_probability:.0f} % a word"
        print(f"probability  {math.exp(caption.logprob):.2g} of all sentences, {mean}:")
        words = zip(caption.tokens, caption.probabilities, strict=True)
        print("             " + "  ".join(f"{word} {100 * probability:.0f} %" for word, probability in words) + "\n")
    return 1 if failed else 0
