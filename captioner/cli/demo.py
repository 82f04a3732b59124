"""captioner demo: a first caption, without any preparation."""

from __future__ import annotations

import argparse
import math

from captioner.errors import DeviceError, one_line, to_install

ABOUT = {
    "help": "caption an example photograph, or your own",
    "description": "Show captions and their probabilities, for a photograph that matplotlib ships or for your own.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("paths", metavar="PATH", nargs="*", help="files, folders or patterns [the example photograph]")


def run(args: argparse.Namespace) -> int:
    """Caption the pictures and show how sure the model is; 1 when a picture failed."""
    from captioner.inference.captioner import load
    from captioner.pictures.find import find_pictures

    failed = 0
    for result in load().caption_files(find_pictures(args.paths or [_photograph()])):
        print(f"picture      {one_line(result.path)}")
        if not (caption := result.caption):
            failed += 1
            print(f"no caption   {result.error}\n")
            continue
        print(f"caption      {caption.text}")
        mean = f"{100 * caption.mean_probability:.0f} % a word"
        print(f"probability  {math.exp(caption.logprob):.2g} of all sentences, {mean}:")
        words = zip(caption.tokens, caption.probabilities, strict=True)
        print("             " + "  ".join(f"{word} {100 * probability:.0f} %" for word, probability in words) + "\n")
    return 1 if failed else 0


def _photograph() -> str:
    """Grace Hopper's portrait (US Navy, public domain), which matplotlib installs as sample data."""
    try:
        from matplotlib.cbook import get_sample_data
    except ImportError as error:
        needs = f"the example photograph comes with matplotlib: {to_install('page')}"
        raise DeviceError(f"{needs}, or give a picture: captioner demo PICTURE") from error
    return str(get_sample_data("grace_hopper.jpg", asfileobj=False))
