"""captioner evaluate: measure captions against those that people wrote."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from captioner.cli.arguments import add_model, add_options, load_model, picked
from captioner.errors import OptionError, one_line
from captioner.options import TOKEN_KINDS, DecodeOptions, option_specs, parse_options

ABOUT = {
    "help": "measure captions against those that people wrote",
    "usage": "captioner evaluate --captions FILE (--images DIR | --predictions FILE) [options]\n"
    "       captioner evaluate --retrieval --captions FILE --images DIR [options]",
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
    data.add_argument("--tokens", choices=TOKEN_KINDS, help="what captions are split into [depends on their script]")
    data.add_argument("--allow-missing", action="store_true", help="leave out pictures that lack a counterpart")
    retrieval = "measure how well the captions find their pictures, instead of captions that the model writes"
    data.add_argument("--retrieval", action="store_true", help=retrieval)
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="also write all scores to this file")
    output.add_argument("--report", type=Path, metavar="FILE", help="also write a page with plots and examples")
    output.add_argument("--compare", nargs=2, help=argparse.SUPPRESS)
    add_model(parser.add_argument_group("model"))
    add_options(parser, DecodeOptions)


def run(args: argparse.Namespace) -> int:
    """Score, and print a table and the recipe."""
    options: DecodeOptions = parse_options(DecodeOptions, vars(args))
    if args.compare:
        raise OptionError("two evaluations are compared with a command of its own: captioner compare A.json B.json")
    if not args.captions:
        raise OptionError("give the captions that people wrote with --captions FILE")
    decoding = [spec.flag for spec in option_specs(DecodeOptions) if spec.name in args]
    unused = [*(["--checkpoint"] if args.checkpoint else []), *decoding]
    if args.predictions and unused:
        raise OptionError(f"--predictions are captions already: leave out {unused[0]}")
    if args.retrieval:
        return _retrieval(args, decoding)
    from captioner.evaluation.run import evaluate
    from captioner.inference.progress import watched

    names = ("images", "predictions", "split", "split_list", "coco_images", "tokens", "allow_missing")
    given = {**picked(args, *names), "say": _say, "progress": watched}
    if not args.predictions:
        given |= {"model": partial(load_model, args), "options": options}
    result = evaluate(args.captions, **given)
    scores = result.scores
    print(f"{result.table()}\n\n{scores['images']} images, {scores['references']} references", end="")
    print(f", {scores['distinct']} distinct captions ({100 * scores['distinct'] / scores['images']:.1f} %)")
    print(f"floor: {one_line(result.floor['caption'])}")
    for line in _support(result.reliability):
        print(line)
    for one in result.pictures[:2]:  # so that a person sees what was misread
        print(f"read as: {one_line(one.name)}: {one_line(one.caption)!r}; people: {one_line(one.references[0])!r}")
    print(f"recipe: {result.recipe}")
    for warning in result.warnings():
        _say(f"warning: {warning}")
    _write(args.json, [result.to_json()])
    if args.report:
        from captioner.evaluation.report import report  # which imports Jinja2; scores do without

        _write(args.report, report(result))
    return 0


def _retrieval(args: argparse.Namespace, decoding: list[str]) -> int:
    """Print how well the captions find their pictures."""
    unused = [f"--{name.replace('_', '-')}" for name in ("predictions", "tokens", "coco_images") if getattr(args, name)]
    for flag in (*unused, *decoding):
        raise OptionError(f"--retrieval measures the sentences that people wrote: leave out {flag}")
    if not args.images:
        raise OptionError("--retrieval needs the pictures: give --images DIR")
    from captioner.evaluation.retrieval import evaluate_retrieval
    from captioner.inference.progress import watched

    given = picked(args, "images", "split", "split_list", "allow_missing")
    result = evaluate_retrieval(args.captions, model=partial(load_model, args), say=_say, progress=watched, **given)
    scores = result.scores
    print(f"{result.table()}\n\n{scores['pictures']} pictures, {scores['sentences']} sentences")
    print(f"recipe: {result.recipe}")
    _write(args.json, [result.to_json()])
    if args.report:
        from captioner.evaluation.report import retrieval_report

        _write(args.report, retrieval_report(result))
    return 0


def _write(path: Path | None, content: Iterable[str]) -> None:
    if path:
        from captioner.files import replacing

        with replacing(path) as file:
            file.writelines(content)
        _say(f"wrote {path}")


def _support(found: Mapping[str, Any]) -> Iterator[str]:
    """What of the captions the references support, and what their confidence is worth."""
    people = f" (people: {found['human_support']:.1f} %)" if "human_support" in found else ""
    yield f"support: {found['support']:.1f} % of the content words are in a reference{people}"
    if "error" in found:
        half = next(support for share, support, _ in found["surest"] if share == 50)
        yield (
            f"confidence: {found['error']:.1f} points off on average; support of the surest half: {half:.1f} %; "
            f"{found['right']:.1f} % of all captions are right"
        )


def _say(line: str) -> None:
    print(f"captioner: {one_line(line)}", file=sys.stderr)
