"""Which pictures are meant by files, folders, patterns and lists on stdin."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from captioner.errors import DataError, InputError
from captioner.files import decoded
from captioner.pictures.load import SUFFIXES


def find_pictures(arguments: Iterable[str], recursive: bool = False, stdin: Iterable[str] = ()) -> list[str]:
    """The paths of the pictures that `arguments` mean, each once, in a fixed order.

    An argument is one of these:
    - a file, whatever its name is;
    - a folder: its pictures, sorted, recognised by their suffixes; with `recursive` also those in subfolders;
    - a pattern such as "photos/**/*.jpg";
    - "-": the lines of `stdin`, one path each. The bytes of sys.stdin may be in any encoding (see `files.decoded`).
    Folders and patterns leave out hidden files, among them the "._" files of macOS. A file that does not exist is
    kept, so that it is reported like every other picture that cannot be read.
    Raises InputError when a folder or pattern holds no picture, an argument is empty, or nothing was given.
    """
    found: dict[str, None] = {}
    for argument in arguments:
        if not argument:
            raise InputError("one of the paths is empty: give a file, a folder or a pattern (was a variable not set?)")
        if argument == "-":
            pictures = [path for line in _lines(stdin) if (path := line.rstrip("\r\n").removeprefix("\ufeff"))]
        elif os.path.isdir(argument):
            if not (pictures := list(_in_folder(argument, recursive))):
                hint = "" if recursive else " (--recursive also looks into its subfolders)"
                raise InputError(f"{argument}: no pictures in this folder{hint}")
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            if not (pictures := sorted(_matching(argument))):
                raise InputError(f"{argument}: no file matches this pattern")
        else:
            pictures = [argument]
        found.update(dict.fromkeys(pictures))
    if not found:
        raise InputError("no pictures were given")
    return list(found)


def _lines(stdin: Iterable[str]) -> Iterable[str]:
    """The lines of a list. A file name need not be text: its bytes count if there is a file of that name."""
    if not hasattr(stdin, "buffer"):
        return stdin
    data = stdin.buffer.read()
    as_bytes = io.StringIO(os.fsdecode(data), newline=None)
    try:
        text, encoding = decoded(data)
    except DataError:
        return as_bytes
    lines = io.StringIO(text, newline=None)
    if encoding.startswith("utf"):
        return lines
    pairs = zip(as_bytes, lines, strict=True)
    return [name if os.path.lexists(name.rstrip("\n")) else line for name, line in pairs]


def _matching(pattern: str) -> Iterator[str]:
    """The files that match. Links to folders are not followed, and hidden ones count only if the pattern names one."""
    # Unlike that of the module glob, pathlib's "**" ends where a link leads back to a folder above it. At the end of a
    # pattern it finds folders only, hence the "*".
    named = Path(pattern, "*") if pattern.endswith("**") else Path(pattern)
    hidden_too = any(part.startswith(".") for part in named.parts)
    for path in Path(named.anchor).glob(str(named.relative_to(named.anchor))):
        if path.is_file() and (hidden_too or not any(part.startswith(".") for part in path.parts)):
            yield str(path)


def _in_folder(folder: str, recursive: bool) -> Iterator[str]:
    def give_up(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=give_up):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(parent, name)
