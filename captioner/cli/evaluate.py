"""captioner evaluate: measure captions against those that people wrote."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.cli.arguments import add_checkpoint, add_decode_options, add_tokens, chosen
from captioner.errors import OptionError, one_line
from captioner.options import DecodeOptions, option_specs

if TYPE_CHECKING:
    from captioner.evaluation.scores import Evaluation
    from captioner.inference.captioner import Captioner
    from captioner.inference.results import FileResult


ABOUT = {
    "help": "measure captions against those that people wrote",
    "usage": "captioner evaluate --captions FILE (--images DIR | --predictions FILE) [options]",
    "description": "Print BLEU-1 to 4, ROUGE-L and CIDEr-D, beside those of a human and of the best constant caption.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    data = parser.add_argument_group("what is evaluated")
    data.add_argument("--captions", type=Path, metavar="FILE", help="captions that people wrote, in any common layout")
    data.add_argument("--images", type=Path, metavar="DIR", help="pictures to caption, or to show in the report")
    data.add_argument("--split-list", type=Path, metavar="FILE", help="names of the pictures to evaluate on [all]")
    data.add_argument("--split", metavar="NAME", help="a split that the captions file itself defines, such as val")
    data.add_argument("--predictions", type=Path, metavar="FILE", help="captions to score: COCO results, jsonl or csv")
    data.add_argument("--coco-images", type=Path, metavar="FILE", help="JSON with the COCO numbers of the pictures")
    add_tokens(data)
    data.add_argument("--allow-missing", action="store_true", help="leave out pictures that lack a counterpart")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="also write all scores to this file")
    output.add_argument("--report", type=Path, metavar="FILE", help="also write a page with plots and examples")
    output.add_argument("--compare", nargs=2, help=argparse.SUPPRESS)
    model = parser.add_argument_group("model")
    add_checkpoint(model)
    add_decode_options(parser)


def run(args: argparse.Namespace) -> int:
    """Score, and print a table and the recipe."""
    options: DecodeOptions = chosen(DecodeOptions, args)
    if args.compare:
        raise OptionError("two evaluations are compared with a command of its own: captioner compare A.json B.json")
    if not args.captions:
        raise OptionError("give the captions that people wrote with --captions FILE")
    decoding = [spec.flag for spec in option_specs(DecodeOptions) if spec.name in vars(args)]
    unused = [*(["--checkpoint"] if args.checkpoint else []), *decoding]
    if args.predictions and unused:
        raise OptionError(f"--predictions are captions already: leave out {unused[0]}")
    from tqdm import tqdm

    from captioner.evaluation.report import report
    from captioner.evaluation.run import evaluate
    from captioner.files import replacing

    names = ("images", "predictions", "split", "split_list", "coco_images", "tokens", "allow_missing")
    result = evaluate(
        args.captions,
        **{name: vars(args)[name] for name in names},
        model=None if args.predictions else partial(_load, args),
        options=None if args.predictions else options,
        say=_say,
        progress=partial(tqdm, unit="picture", disable=None),
    )
    _print(result)
    if args.json:
        with replacing(args.json) as file:
            file.write(result.to_json())
        _say(f"wrote {args.json}")
    if args.report:
        with replacing(args.report) as file:
            file.writelines(report(result))
        _say(f"wrote {args.report}")
    return 0


@dataclass(frozen=True)
class _Loaded:
    """A Captioner beside what evaluation must know of it."""

    captioner: Captioner
    engine: str
    precision: str
    sha256: str

    def digest(self) -> str:
        return self.sha256

    def caption_files(self, paths: Iterable[str], options: DecodeOptions | None = None) -> Iterator[FileResult]:
        return self.captioner.caption_files(paths, options)


def _load(args: argparse.Namespace) -> _Loaded:
    from captioner.files import sha256_of
    from captioner.inference.captioner import load
    from captioner.network.header import find_checkpoint

    model = load(args.checkpoint, args.device, args.precision, args.engine)
    # The file is read now, because training may replace it at any time.
    return _Loaded(model, args.engine, model.precision, sha256_of(find_checkpoint(args.checkpoint)))


def _say(line: str) -> None:
    print(f"captioner: {one_line(line)}", file=sys.stderr)


def _print(result: Evaluation) -> None:
    scores = result.scores
    print(f"{result.table()}\n")
    print(f"{scores['images']} images, {scores['references']} references", end="")
    print(f", {scores['distinct']} distinct captions ({100 * scores['distinct'] / scores['images']:.1f} %)")
    print(f"floor: {one_line(result.floor['caption'])}")
    print(f"recipe: {result.recipe}")
    for warning in result.warnings():
        _say(f"warning: {warning}")
