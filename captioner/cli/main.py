"""The command line. A command imports what it needs when it runs, so that `--help` is instant.

Results go to stdout, everything else to stderr. Exit status: 0 if all went well, 1 if some pictures failed, 2 for wrong
usage or unusable input, 130 if interrupted.
"""

from __future__ import annotations

import argparse
import codecs
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from captioner import __version__
from captioner.cli.arguments import Parser
from captioner.errors import CaptionerError, one_line, to_install_torch

_COMMANDS = (
    *("demo", "app", "serve", "caption", "watch", "find", "read", "apply", "alt", "cluster"),
    *("score", "sample", "evaluate", "compare", "models", "data", "train", "export"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    codecs.register_error("captioner", _printable)
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "captioner"), (sys.stderr, "captioner")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)
    try:
        if not given:
            _parser().print_help(sys.stderr)
            return 2
        args = _parsed(given)
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read our output has stopped, as in `captioner caption photos | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\ncaptioner: stopped", file=sys.stderr)
        return 130
    except (CaptionerError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        print(f"captioner: error: {one_line(reason)}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision"):
            raise
        missing = f"this command needs {error.name}, which is not installed"
        print(f"captioner: error: {missing}: {to_install_torch()}", file=sys.stderr)
        return 2


def _parsed(given: Sequence[str]) -> argparse.Namespace:
    # The other commands need not be imported.
    args, rest = _parser(given[:1] if given[0] in _COMMANDS else _COMMANDS).parse_known_args(given)
    # Until Python 3.12, argparse does not take `FILE -f alt DOCUMENT`, where a flag stands between them.
    last = next((name for name in ("documents", "paths") if isinstance(getattr(args, name, None), list)), None)
    if rest and (last is None or any(text.startswith("-") for text in rest)):
        args.refuse(f"unrecognized arguments: {' '.join(rest)}")
    if rest and last:
        setattr(args, last, getattr(args, last) + rest)
    return args


def _printable(error: UnicodeError) -> tuple[str | bytes, int]:
    """What is printed for characters that the encoding of a terminal lacks: their codes, such as \\u5199.

    File names need not be valid text. Bytes that are not are printed as they are.
    """
    assert isinstance(error, UnicodeEncodeError)
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    return letter.encode("ascii", "backslashreplace").decode(), error.start + 1


def _parser(names: Sequence[str] = _COMMANDS) -> argparse.ArgumentParser:
    about = "Captions for pictures, on your own machine: no network and no GPU needed."
    parser = Parser(prog="captioner", description=about)
    parser.add_argument("--version", action="version", version=f"captioner {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in names:
        module = import_module(f"captioner.cli.{name}")
        command = commands.add_parser(name, **module.ABOUT)
        # `data` has a function for each of its actions.
        command.set_defaults(run=getattr(module, "run", None), refuse=command.error)
        module.add_arguments(command)
    return parser
