"""captioner score: which of these sentences fits the picture best?"""

from __future__ import annotations

import argparse
import sys

from captioner.cli.arguments import add_model, load_model

ABOUT = {
    "help": "rate how well given sentences fit a picture",
    "description": "Print LOGPROB<TAB>SENTENCE for each sentence, the most likely first, and last those with words "
    "that the model does not know.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("image", metavar="IMAGE", help="the picture, or - for one on stdin")
    parser.add_argument("sentences", metavar="SENTENCE", nargs="+", help="sentences that may describe it")
    parser.add_argument("--words", action="store_true", help="also print the probability of every word")
    add_model(parser.add_argument_group("model"))


def run(args: argparse.Namespace) -> int:
    """Score every sentence for the picture."""
    from captioner.pictures.find import STDIN
    from captioner.pictures.load import load_image

    # Before the model is loaded: the picture may be wrong.
    image = load_image(sys.stdin.buffer if args.image == STDIN else args.image)
    for caption in load_model(args).rank(image, args.sentences):
        print(f"{caption.logprob:.2f}\t{caption.text}")
        if args.words:
            ends = (*caption.tokens, "<end>"), (*caption.probabilities, caption.end_probability)
            for word, probability in zip(*ends, strict=True):
                print(f"\t{probability:.4f}\t{word}")
        if caption.unknown:
            words = ", ".join(map(repr, caption.unknown))
            print(f"captioner: note: {caption.text!r} ranks last: the model does not know {words}", file=sys.stderr)
    return 0
