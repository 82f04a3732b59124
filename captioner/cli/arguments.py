"""Flags that several commands share, and flags made from an options dataclass."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from captioner.options import ENGINES, PRECISIONS, DecodeOptions, option_specs, parse_options

if TYPE_CHECKING:
    from captioner.inference.captioner import Captioner

Group: TypeAlias = argparse._ArgumentGroup
_METAVARS = {int: "N", float: "X", str: "NAME"}


class Parser(argparse.ArgumentParser):
    """A parser, also of subcommands, whose help is wide enough for most options to take one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=partial(argparse.HelpFormatter, max_help_position=30, width=118), **settings)


def add_options(
    place: argparse.ArgumentParser | Group,
    options: type,
    only: Iterable[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """A flag for each field of an options dataclass, or for those named in `only`, with its help and default.

    In a parser, options that were declared with a group stand under its heading; a group keeps all of them together.
    `defaults` are those of a command that differ from the dataclass's, by name.
    """
    own, heading = defaults or {}, cache(place.add_argument_group)
    for spec in option_specs(options):
        if only is not None and spec.name not in only:
            continue
        group = heading(spec.group) if spec.group and isinstance(place, argparse.ArgumentParser) else place
        # What is not given is left out, so that the dataclass supplies its default.
        given: dict[str, Any] = {"default": own.get(spec.name, argparse.SUPPRESS), "help": spec.help}
        if spec.kind is bool:
            given["action"] = argparse.BooleanOptionalAction if own.get(spec.name, spec.default) else "store_true"
        else:
            default = own.get(spec.name, spec.default)
            shown = f"{default:g}" if isinstance(default, float) else default
            given["help"] += "" if default == "" else f" [{spec.unset if default is None else shown}]"
            given["type"] = spec.kind
            given |= {"choices": spec.choices or None, "metavar": "WORDS" if default == "" else _METAVARS[spec.kind]}
        group.add_argument(spec.flag, **given)


def picked(given: object, *names: str) -> dict[str, Any]:
    """The flags or options of these names, as keyword arguments."""
    return {name: getattr(given, name) for name in names}


def add_wording(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """--prompt and all of DecodeOptions; `defaults` are those of a command that differ."""
    wording = parser.add_argument_group("how captions are chosen")
    prompt = "first words of every caption; --max-length includes them"
    wording.add_argument("--prompt", default="", metavar="TEXT", help=prompt)
    add_options(wording, DecodeOptions, defaults=defaults)


def add_pictures(parser: argparse.ArgumentParser, paths: str) -> None:
    """PATH... and --recursive"""
    inputs = parser.add_argument_group("pictures")
    inputs.add_argument("paths", metavar="PATH", nargs="+", help=paths)
    inputs.add_argument("-r", "--recursive", action="store_true", help="also look into the subfolders of folders")


def add_many_pictures(parser: argparse.ArgumentParser, paths: str) -> tuple[Group, Group]:
    """What `caption` and `cluster` have in common. Returns the groups for more flags of the output and of the model."""
    add_pictures(parser, paths)
    output = parser.add_argument_group("output")
    output.add_argument("-q", "--quiet", action="store_true", help="print no progress and no summary, only failures")
    add_wording(parser)
    model = parser.add_argument_group("model")
    model.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures encoded at once [32]")
    return output, model


def picked_many(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_many_pictures` declared, as keyword arguments. Raises OptionError."""
    options: DecodeOptions = parse_options(DecodeOptions, vars(args))
    from captioner.bulk.progress import Progress

    given = picked(args, "prompt", "recursive", "batch_size")
    return {**given, "options": options, "progress": Progress(args.quiet)}


def add_checkpoint(group: argparse.ArgumentParser | Group) -> None:
    """--checkpoint"""
    checkpoint = "a file, or a name that `captioner models` lists [flickr8k]"
    group.add_argument("--checkpoint", metavar="FILE", help=checkpoint)


def add_model(group: Group) -> None:
    """The flags of `load_model`."""
    add_checkpoint(group)
    group.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda or cuda:1 [a GPU if there is one]")
    precision = "float32, bfloat16, or auto: bfloat16 if the processor supports it [auto]"
    group.add_argument("--precision", choices=PRECISIONS, default="auto", metavar="NAME", help=precision)
    engine = "torch, onnx, or auto: onnx for the folder of an exported model [auto]"
    group.add_argument("--engine", choices=ENGINES, default="auto", metavar="NAME", help=engine)


def add_index(group: Group) -> argparse._MutuallyExclusiveGroup:
    """--index. Returns the group for what goes against it."""
    index = group.add_mutually_exclusive_group()
    where = "the index in which encoded pictures are looked up and kept [in the user's cache]"
    index.add_argument("--index", type=Path, default=True, metavar="FILE", help=where)
    return index


def load_model(args: argparse.Namespace) -> Captioner:
    """The model that the flags of `add_model` describe."""
    from captioner.network.header import find_checkpoint, read_header

    read_header(find_checkpoint(args.checkpoint))  # a wrong file need not wait for torch
    from captioner.inference.captioner import load

    return load(args.checkpoint, args.device, args.precision, args.engine)


def add_data(group: Group, required: bool = True) -> None:
    """--captions, --images and the two split lists"""
    captions = "captions, in any common layout"
    group.add_argument("--captions", type=Path, required=required, metavar="FILE", help=captions)
    group.add_argument("--images", type=Path, required=required, metavar="DIR", help="folder of the pictures")
    group.add_argument("--train-list", type=Path, metavar="FILE", help="names of the pictures to train on")
    names = "names of the pictures to validate on [the captions file's choice, or a tenth]"
    group.add_argument("--val-list", type=Path, metavar="FILE", help=names)
