"""captioner evaluate: how good captions are, in numbers that others can trust."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.cli.arguments import HelpFormatter, add_checkpoint, add_decode_options, add_tokens, chosen
from captioner.errors import DataError, one_line
from captioner.options import DecodeOptions, option_specs

if TYPE_CHECKING:
    from captioner.data.splits import CaptionSet
    from captioner.evaluation.scores import Evaluation

# What may be wrong with the pictures and captions, by its key in the JSON.
_PROBLEMS = {
    "no_references": ("picture without references", "pictures without references"),
    "no_picture": ("picture is not in the folder", "pictures are not in the folder"),
    "unreadable": ("picture cannot be read", "pictures cannot be read"),
    "no_caption": ("picture has references but no caption", "pictures have references but no caption"),
    "repeated": ("picture has several captions", "pictures have several captions"),
    "empty_references": ("picture has a reference without words", "pictures have references without words"),
    "empty": ("caption has no words", "captions have no words"),
}
_SHOWN = 5  # names a problem in a message


@dataclasses.dataclass
class _Captions:
    """What is to be scored, by picture name, and what stands in the way."""

    references: dict[str, list[str]]  # of the pictures that were asked for
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    words: dict[str, tuple[tuple[str, float], ...]] = dataclasses.field(default_factory=dict)
    problems: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def problem(self, kind: str, names: Sequence[str]) -> None:
        """Note a problem of _PROBLEMS with these pictures; with none, there is no problem."""
        if names:
            self.problems.setdefault(kind, []).extend(names)

    def described(self) -> list[str]:
        """A phrase a problem, with its count and the first names."""
        found = []
        for kind, names in self.problems.items():
            some = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            found.append(f"{len(names)} {_PROBLEMS[kind][len(names) > 1]} ({some})")
        return found

    def refuse(self, args: argparse.Namespace) -> None:
        """Raise DataError for problems, unless they are allowed."""
        if self.problems and not args.allow_missing:
            selected = args.split_list or args.split
            split = "" if selected else "name the pictures to evaluate on with --split-list FILE, or "
            raise DataError(f"{'; '.join(self.described())}: {split}pass over them with --allow-missing")


def add_parser(commands: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="measure captions against those that people wrote",
        usage="captioner evaluate --captions FILE (--images DIR | --predictions FILE) [options]\n"
        "       captioner evaluate --compare A.json B.json",
        description="BLEU-1 to 4, ROUGE-L and CIDEr-D beside a human's and the best constant caption's.",
        formatter_class=HelpFormatter,
    )
    data = parser.add_argument_group("what is evaluated")
    data.add_argument("--captions", type=Path, metavar="FILE", help="the references: what people wrote, any layout")
    data.add_argument("--images", type=Path, metavar="DIR", help="the pictures, to caption them or for the report")
    data.add_argument("--split-list", type=Path, metavar="FILE", help="names of the pictures to evaluate on [all]")
    data.add_argument("--split", metavar="NAME", help="those that the captions file itself puts there, such as val")
    data.add_argument("--predictions", type=Path, metavar="FILE", help="any captioner's: COCO results, jsonl or csv")
    data.add_argument("--coco-images", type=Path, metavar="FILE", help="JSON with the pictures' COCO numbers")
    add_tokens(data)
    data.add_argument("--allow-missing", action="store_true", help="pass over what has no counterpart, and say so")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="also write all scores there")
    output.add_argument("--report", type=Path, metavar="FILE", help="also write a page with plots and examples there")
    output.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A", "B"), help="of two --json files: is the difference chance?"
    )
    model = parser.add_argument_group("model")
    add_checkpoint(model)
    add_decode_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score, and print a table and the recipe; or compare."""
    options: DecodeOptions = chosen(DecodeOptions, args)
    _check_usage(args)
    if args.compare:
        return _compare(*args.compare)
    from captioner.data.splits import read_captions
    from captioner.evaluation.scores import evaluate, recipe
    from captioner.files import replacing
    from captioner.vocab import fitting_tokens, tokenise

    known = read_captions(args.captions)
    if known.empty:
        print(f"captioner: {known.empty} empty references are left out", file=sys.stderr)
    captions = _references(known, args)
    tokens = args.tokens or fitting_tokens(text for those in captions.references.values() for text in those)
    if args.predictions:
        source = _read_predictions(captions, known.captions, args)
    else:
        source = _caption_pictures(captions, options, args)
    captions.problem("empty", [name for name, text in captions.texts.items() if not tokenise(text)])
    captions.refuse(args)
    for line in captions.described():
        print(f"captioner: warning: {one_line(line)}", file=sys.stderr)
    if not captions.texts:
        raise DataError("no picture has both references and a caption")
    result = dataclasses.replace(evaluate(captions.texts, captions.references, tokens), problems=captions.problems)
    packages = ("captioner", "nltk") if args.predictions else ("captioner", "nltk", "torch")
    result = dataclasses.replace(result, recipe=recipe(result, source, packages))

    scores = result.scores
    print(result.table())
    print()
    print(f"{scores['images']} images, {scores['references']} references", end="")
    print(f", {scores['distinct']} distinct captions ({100 * scores['distinct'] / scores['images']:.1f} %)")
    print(f"floor: {one_line(result.floor['caption'])}")
    print(f"recipe: {result.recipe}")
    for warning in result.warnings():
        print(f"captioner: warning: {one_line(warning)}", file=sys.stderr)
    if args.json:
        with replacing(args.json) as file:
            file.write(result.to_json())
        print(f"captioner: wrote {args.json}", file=sys.stderr)
    if args.report:
        with replacing(args.report) as file:
            file.write(_report(result, captions, args.images))
        print(f"captioner: wrote {args.report}", file=sys.stderr)
    return 0


def _check_usage(args: argparse.Namespace) -> None:
    """Raise DataError for arguments that do not go together, before any work is done."""
    given = vars(args)
    decoding = [spec.flag for spec in option_specs(DecodeOptions) if spec.name in given]
    if args.compare:
        names = (
            *("captions", "images", "split_list", "split", "tokens", "predictions", "coco_images"),
            *("json", "report", "checkpoint"),
        )
        unused = [f"--{name.replace('_', '-')}" for name in names if given[name]] + decoding
        if unused:
            raise DataError(f"--compare reads two --json files and nothing else: leave out {unused[0]}")
        return
    if args.split and args.split_list:
        raise DataError("--split and --split-list both name the pictures to evaluate on: leave out one")
    if not args.captions:
        raise DataError("give the references with --captions FILE, or two evaluations with --compare A B")
    if args.predictions:
        unused = [*(["--checkpoint"] if args.checkpoint else []), *decoding]
        if unused:
            raise DataError(f"--predictions are captions already: leave out {unused[0]}")
    elif args.coco_images:
        raise DataError("--coco-images says which pictures the numbers in --predictions mean: give those, too")
    elif not args.images:
        raise DataError("give the pictures with --images DIR, or captions with --predictions FILE")


def _compare(first: Path, second: Path) -> int:
    from captioner.evaluation.compare import compare, describe

    print(describe(compare(first, second)))
    print(f"\nA: {first}\nB: {second}")
    print("95 % interval: paired bootstrap over pictures, 1000 resamples; beyond chance where it leaves out 0")
    return 0


def _references(known: CaptionSet, args: argparse.Namespace) -> _Captions:
    """The references of the pictures to evaluate on, those without a word left out."""
    from captioner.data.splits import names_of_split, read_split_list
    from captioner.vocab import tokenise

    if args.split_list:
        names = read_split_list(args.split_list)
    else:
        names = names_of_split(known, args.split) if args.split else list(known.captions)
    captions = _Captions({})
    for name in names:
        those = known.captions.get(name, [])
        with_words = [text for text in those if tokenise(text)]
        if with_words:
            captions.references[name] = with_words
            if with_words != those:
                captions.problem("empty_references", [name])
        else:
            captions.problem("no_references", [name])
    return captions


def _read_predictions(captions: _Captions, known: Mapping[str, list[str]], args: argparse.Namespace) -> dict[str, str]:
    """Fill in the captions of --predictions. Returns their part of the recipe."""
    from captioner.data.names import read_image_ids
    from captioner.evaluation.predictions import match, read_predictions
    from captioner.files import sha256_of

    ids = read_image_ids(args.coco_images) if args.coco_images else None
    matched = match(read_predictions(args.predictions), known, ids)
    for name in captions.references:
        if name in matched.predictions:
            captions.texts[name] = matched.predictions[name].caption
            captions.words[name] = matched.predictions[name].words
    captions.problem("no_references", matched.unknown)
    captions.problem("no_caption", [name for name in captions.references if name not in captions.texts])
    captions.problem("repeated", [name for name in matched.repeated if name in captions.texts])
    others = len(matched.predictions) - len(captions.texts)
    if others:
        print(f"captioner: {others} captions are of pictures that are not evaluated", file=sys.stderr)
    return {"predictions": sha256_of(args.predictions)[:12]}


def _caption_pictures(captions: _Captions, options: DecodeOptions, args: argparse.Namespace) -> dict[str, str]:
    """Fill in the captions that the checkpoint writes. Returns their part of the recipe."""
    from captioner.data.splits import find_files
    from captioner.pictures.find import find_pictures

    files = find_files(captions.references, args.images)
    paths = {str(path): name for name, path in files.items()}
    captions.problem("no_picture", [name for name in captions.references if name not in files])
    if files and not args.split_list and not args.split:
        others = [path for path in find_pictures([str(args.images)], recursive=True) if path not in paths]
        captions.problem("no_references", [os.path.relpath(path, args.images) for path in others])
    captions.refuse(args)  # before minutes of work

    from tqdm import tqdm

    from captioner.files import sha256_of
    from captioner.inference.captioner import load
    from captioner.network.header import find_checkpoint

    model = load(args.checkpoint, args.device, args.precision, args.engine)
    checkpoint = sha256_of(find_checkpoint(args.checkpoint))  # now: training may replace the file
    results = tqdm(model.caption_files(paths, options), total=len(paths), unit="picture", disable=None)
    for result in results:
        name = paths[result.path]
        if result.caption is None:
            print(f"captioner: {result.error}", file=sys.stderr)
            captions.problem("unreadable", [name])
        else:
            captions.texts[name] = result.caption.text
            captions.words[name] = tuple(zip(result.caption.tokens, result.caption.probabilities, strict=True))
    used = (
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in options.used().items()
    )
    return {
        "decoding": ",".join(used),
        "precision": model.precision,
        "engine": args.engine,
        "checkpoint": checkpoint[:12],
    }


def _report(result: Evaluation, captions: _Captions, images: Path | None) -> str:
    from captioner.evaluation.report import report

    if images is None:
        return report(result, captions.words)
    from captioner.data.splits import find_files
    from captioner.pictures.load import thumbnail

    files = find_files(captions.references, images)
    return report(result, captions.words, lambda name: thumbnail(files[name]) if name in files else None)
