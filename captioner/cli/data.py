"""captioner data: look at captions and pictures before training; make a set to try things on."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.cli.arguments import HelpFormatter, add_options, chosen, positive
from captioner.errors import ImageError
from captioner.options import DecodeOptions
from captioner.training.config import TrainConfig

if TYPE_CHECKING:
    from captioner.data.splits import CaptionSet, Example, SplitNames

_SHOWN = 5  # names a line
_STRANGEST = 10


def add_parser(commands: Any) -> None:
    """Declare the commands' arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "data", help="check captions and pictures, or make some to try", formatter_class=HelpFormatter
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_check(actions)
    _add_make_shapes(actions)


def _add_check(actions: Any) -> None:
    parser: argparse.ArgumentParser = actions.add_parser(
        "check",
        help="what is in a set, what is wrong with it, and what training would see",
        description="Exit status 1 when pictures are missing, cannot be read, or are in both parts of the split.",
        formatter_class=HelpFormatter,
    )
    data = parser.add_argument_group("data")
    data.add_argument("--captions", type=Path, required=True, metavar="FILE", help="what people wrote, any layout")
    data.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures named there")
    data.add_argument("--train-list", type=Path, metavar="FILE", help="names of the pictures to learn from")
    data.add_argument("--val-list", type=Path, metavar="FILE", help="names of the pictures to validate on")
    add_options(data, TrainConfig, only=("tokens", "minimum_count", "seed"))
    parser.set_defaults(run=check)


def _add_make_shapes(actions: Any) -> None:
    parser: argparse.ArgumentParser = actions.add_parser(
        "make-shapes",
        help="draw coloured shapes with captions, to try everything with no download",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to: images/, captions and split lists")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="of the captions [en]")
    parser.add_argument("--pictures", type=positive, default=270, metavar="N", help="a fifth is to validate on [270]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other pictures [0]")
    parser.set_defaults(run=make)


def make(args: argparse.Namespace) -> int:
    """Make the set; print the commands to go on with."""
    from captioner.data.shapes import make_shapes

    captions, images, train_list, val_list = make_shapes(args.folder, args.pictures, args.seed, language=args.language)
    data = f"--captions {_typed(captions)} --images {_typed(images)}"
    print(f"{args.pictures} pictures with 3 captions each are in {args.folder}. Look at them, train, and measure:\n")
    print(f"captioner data check {data} \\\n    --train-list {_typed(train_list)} --val-list {_typed(val_list)}\n")
    print(f"captioner train {data} \\\n    --train-list {_typed(train_list)} --val-list {_typed(val_list)} \\")
    print(f"    --output {_typed(args.folder / 'run')} \\")
    print("    --epochs 30 --finetune-epochs 4 --image-size 96 --hidden-size 128 --embedding-size 64 \\")
    print("    --minimum-count 1 --batch-size 32\n")
    print(f"captioner evaluate {data} \\\n    --split-list {_typed(val_list)} \\")
    print(f"    --checkpoint {_typed(args.folder / 'run' / 'best.safetensors')}")
    return 0


def _typed(path: Path) -> str:
    return shlex.quote(str(path))


def check(args: argparse.Namespace) -> int:
    """Print all that is known of a set; 1 when pictures are missing, unreadable or in both parts."""
    config: TrainConfig = chosen(TrainConfig, args)
    from captioner.data.splits import (
        Example,
        Split,
        find_files,
        present_names,
        read_captions,
        same_content,
        split_names,
    )
    from captioner.vocab import fitting_tokens

    captions = read_captions(args.captions)
    files = find_files(captions.captions, args.images)
    if not args.train_list:
        present_names(captions.captions, args.images)  # which says so when there is none
    names = split_names(captions, files, args.train_list, args.val_list, config.seed)
    listed = dict.fromkeys([*names.train, *names.validation] if args.train_list else captions.captions)
    every = [text for texts in captions.captions.values() for text in texts]
    tokens = fitting_tokens(every) if config.tokens == "auto" else config.tokens

    _print_captions(captions, len(every))
    wrong = _check_pictures(captions, files, listed, args.images)
    train, validation = (
        [Example(name, files[name], tuple(captions.captions[name])) for name in those if name in files]
        for those in (names.train, names.validation)
    )
    overlap = names.overlap()
    same = [pair for pair in same_content(Split(train, validation, {})) if pair[0] not in overlap]
    _print_lengths(every, tokens)
    _print_vocabulary(train, validation, tokens, config.minimum_count)
    _print_strangest(captions, tokens)
    _print_training(train, validation, names, tokens)
    if overlap:
        print(f"  in both split lists    {_counted(overlap)}")
    if same:
        print(f"  the same file in both  {_counted([f'{one} = {other}' for one, other in same])}")
    return 1 if wrong or overlap or same else 0


def _heading(text: str) -> None:
    print(f"\n{text}")


def _counted(names: Sequence[str]) -> str:
    """How many, and the first of them."""
    some = ", ".join(map(_printable, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names):,}" + (f": {some}" if names else "")


def _print_captions(captions: CaptionSet, number: int) -> None:
    counts = [len(texts) for texts in captions.captions.values()]
    each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    print(f"Captions: {captions.path}")
    print(f"  layout                 {captions.form}")
    print(f"  captions               {number:,} of {len(counts):,} pictures, {each} each")
    print(f"  empty, left out        {captions.empty:,}")
    repeated = number - len({(name, text) for name, texts in captions.captions.items() for text in texts})
    print(f"  twice for a picture    {repeated:,}")


def _check_pictures(captions: CaptionSet, files: dict[str, Path], listed: Iterable[str], images: Path) -> bool:
    """Print what is to say of the picture files; whether one that is needed is missing or unreadable."""
    from captioner.data.splits import alike
    from captioner.pictures.find import find_pictures

    silent = [name for name in listed if name not in captions.captions]
    missing = [name for name in listed if name in captions.captions and name not in files]
    others = sum(name not in files for name in captions.captions) - len(missing)
    in_folder = [Path(path) for path in find_pictures([str(images)], recursive=True)] if files else []
    names = {path: name for name, path in files.items()}
    without = [path.relative_to(images).as_posix() for path in in_folder if path not in names]
    unreadable = _unreadable([files[name] for name in listed if name in files])
    twins = [" = ".join(names[path] for path in group) for group in alike(names)]
    _heading(f"Pictures: {images}")
    print(f"  captioned and there    {len(files):,}")
    print(f"  missing                {_counted(missing)}")
    if others:
        print(f"  missing, not listed    {others:,}")
    print(f"  cannot be read         {_counted(unreadable)}")
    print(f"  without captions       {_counted(without)}")
    if silent:
        print(f"  listed, no captions    {_counted(silent)}")
    print(f"  same file twice        {_counted(twins)}")
    return bool(missing or unreadable or silent)


def _unreadable(paths: Sequence[Path]) -> list[str]:
    """Why pictures cannot be read, a text each."""
    from concurrent.futures import ThreadPoolExecutor

    from tqdm import tqdm

    from captioner.pictures.load import load_image

    def problem(path: Path) -> str | None:
        try:
            load_image(path)
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = tqdm(pool.map(problem, paths), total=len(paths), unit=" pictures", disable=None, leave=False)
        return [text for text in found if text]


def _print_lengths(captions: Sequence[str], tokens: str) -> None:
    from captioner.data.survey import histogram
    from captioner.vocab import tokenise

    lengths = [len(tokenise(text, tokens)) for text in captions]
    ordered = sorted(lengths)
    limit = DecodeOptions().max_length
    longer = sum(length > limit for length in lengths)
    _heading(f"Lengths in {tokens}s: {sum(lengths) / len(lengths):.1f} on average, median {ordered[len(ordered) // 2]}")
    for line in histogram(lengths):
        print(line)
    print(f"  longer than --max-length {limit}, the default: {100 * longer / len(lengths):.1f} %")
    for what, length in (("shortest", ordered[0]), ("longest", ordered[-1])):
        print(f"  {what:8} ({length}): {_clipped(captions[lengths.index(length)])}")


def _print_vocabulary(train: Sequence[Example], validation: Sequence[Example], tokens: str, minimum: int) -> None:
    from captioner.data.survey import MINIMUM_COUNTS, vocabulary_sizes
    from captioner.vocab import tokenise

    learned, others = (
        [tokenise(text, tokens) for example in those for text in example.captions] for those in (train, validation)
    )
    _heading(f"Vocabulary: {tokens}s of the captions that are learned from")
    print("  --minimum-count    size  <unk> in train  in validation")
    for row in vocabulary_sizes(learned, others, sorted({*MINIMUM_COUNTS, minimum})):
        mark = "  <- training's" if row.minimum_count == minimum else ""
        unknown = f"{100 * row.unknown_train:12.2f} %  {100 * row.unknown_validation:11.2f} %"
        print(f"  {row.minimum_count:15}  {row.size:6,}  {unknown}{mark}")


def _print_strangest(captions: CaptionSet, tokens: str) -> None:
    from captioner.data.survey import strangeness
    from captioner.vocab import tokenise

    rows = [(name, text, tokenise(text, tokens)) for name, texts in captions.captions.items() for text in texts]
    bits = strangeness([row[2] for row in rows])
    strangest: dict[str, int] = {}  # each text once
    for row in sorted(range(len(rows)), key=lambda row: -bits[row]):
        strangest.setdefault(rows[row][1], row)
    mean = sum(bits) / len(bits)
    _heading(f"Strangest captions: bits of surprise a {tokens} to who knows all the others, {mean:.1f} on average")
    for row in list(strangest.values())[:_STRANGEST]:
        print(f"  {bits[row]:5.1f}  {_printable(rows[row][0])}  {_clipped(rows[row][1])}")


def _print_training(train: Sequence[Example], validation: Sequence[Example], names: SplitNames, tokens: str) -> None:
    said = {
        "train_list": "to learn from {}",
        "val_list": "to validate on {}",
        "field": "the captions file's own '{}'",
        "seed": "a tenth held out at random with seed {}",
    }
    how = ", ".join(said[key].format(value) for key, value in names.how.items() if key in said)
    _heading(f"Training would see {tokens}s, split so: {how}")
    for what, examples in (("to learn from", train), ("to validate on", validation)):
        number = sum(len(example.captions) for example in examples)
        print(f"  {what:21}  {len(examples):,} pictures, {number:,} captions")


def _clipped(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= 100 else text[:97] + "..."


def _printable(text: str) -> str:
    """Other people's text as one line that does nothing to the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
