"""Flags that several commands share, and flags made from an options dataclass."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from captioner.options import ENGINES, PRECISIONS, TOKEN_KINDS, DecodeOptions, OptionSpec, option_specs, parse_options


class Parser(argparse.ArgumentParser):
    """A parser, also of subcommands, whose help is wide enough for most options to take one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=partial(argparse.HelpFormatter, max_help_position=30, width=118), **settings)


def add_options(
    place: argparse.ArgumentParser | argparse._ArgumentGroup,
    options: type,
    only: Iterable[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """A flag for each field of an options dataclass, or for those named in `only`, with its help and default.

    In a parser, options that were declared with a group stand under its heading; a group keeps all of them together.
    `defaults` are those of a command that differ from the dataclass's, by name.
    """
    own, groups = defaults or {}, {}
    for spec in option_specs(options):
        if only is not None and spec.name not in only:
            continue
        group: argparse._ActionsContainer = place
        if spec.group and isinstance(place, argparse.ArgumentParser):
            if spec.group not in groups:
                groups[spec.group] = place.add_argument_group(spec.group)
            group = groups[spec.group]
        # What is not given is left out, so that the dataclass supplies its default.
        given: dict[str, Any] = {"default": own.get(spec.name, argparse.SUPPRESS), "help": spec.help}
        if spec.kind is bool:
            group.add_argument(spec.flag, action=argparse.BooleanOptionalAction, **given)
        else:
            given["help"] += f" [{_shown(own.get(spec.name, spec.default), spec)}]"
            metavar = None if spec.choices else _METAVARS[spec.kind]
            group.add_argument(spec.flag, type=spec.kind, choices=spec.choices or None, metavar=metavar, **given)


def chosen(options: type, args: argparse.Namespace) -> Any:
    """The options object that the flags describe. Raises OptionError."""
    return parse_options(options, vars(args))


def add_decode_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """All of DecodeOptions, under a heading of their own; `defaults` are those of a command that differ."""
    add_options(parser.add_argument_group("how captions are chosen"), DecodeOptions, defaults=defaults)


def add_prompt(parser: argparse.ArgumentParser) -> None:
    """--prompt, for commands that write captions."""
    group = parser.add_argument_group("how captions begin")
    group.add_argument(
        "--prompt", default="", metavar="TEXT", help="first words of every caption; --max-length includes them"
    )


def add_checkpoint(group: argparse._ArgumentGroup) -> None:
    """--checkpoint, --device, --precision and --engine"""
    group.add_argument("--checkpoint", metavar="FILE", help=CHECKPOINT_HELP)
    group.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda or cuda:1 [a GPU if there is one]")
    precision = "auto: bfloat16 if the processor supports it, otherwise float32 [auto]"
    group.add_argument("--precision", choices=PRECISIONS, default="auto", help=precision)
    engine = "openvino: use the encoder that `captioner export` wrote [torch]"
    group.add_argument("--engine", choices=ENGINES, default="torch", help=engine)


def add_tokens(group: argparse._ArgumentGroup) -> None:
    """--tokens"""
    group.add_argument("--tokens", choices=TOKEN_KINDS, help="what captions are split into [depends on their script]")


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


positive.__name__ = "positive whole number"  # argparse says "invalid positive whole number value: '0'"

CHECKPOINT_HELP = "a file, or a name that `captioner models` lists [flickr8k]"
_METAVARS = {int: "N", float: "X", str: "NAME"}


def _shown(default: object, spec: OptionSpec) -> str:
    if default is None:
        return spec.unset
    return f"{default:g}" if isinstance(default, float) else str(default)
