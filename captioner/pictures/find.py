"""Which pictures are meant by files, folders, patterns and lists on stdin."""

from __future__ import annotations

import glob
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from captioner.errors import DataError, InputError, counted, one_line, to_install
from captioner.files import decoded, is_binary
from captioner.pictures.load import MAX_FILE_BYTES, NAMES, NO_ADDRESS, SUFFIXES, is_address
from captioner.pictures.pairs import VIDEOS, seconds
from captioner.pictures.raw import RAW, available

STDIN = "-"
Stdin: TypeAlias = "io.BufferedIOBase | Iterable[str]"  # a stream of bytes, or the lines of a list
_NETPBM = re.compile(rb"P[1-6]\s+(?:#.*\s+)*\d+\s+\d")  # a picture without any zero byte, unlike all others


def read_stdin(stdin: Stdin) -> bytes | list[str]:
    """What `STDIN` stands for: the bytes of one picture, or the lines of a list of paths in any encoding.

    A file name need not be text: its bytes count if there is a file of that name.
    """
    if not isinstance(stdin, io.BufferedIOBase):
        return _paths(stdin)
    content = stdin.read(MAX_FILE_BYTES + 1)
    if is_binary(content) or _NETPBM.match(content):
        return content
    content += stdin.read()
    as_bytes = io.StringIO(os.fsdecode(content), newline=None)
    try:
        text, encoding = decoded(content)
    except DataError:
        return _paths(as_bytes)
    lines = io.StringIO(text, newline=None)
    if encoding.startswith("utf"):
        return _paths(lines)
    pairs = zip(_paths(as_bytes), _paths(lines), strict=True)
    return [name if os.path.lexists(name) else line for name, line in pairs]


def _paths(lines: Iterable[str]) -> list[str]:
    return [path for line in lines if (path := line.strip("\r\n\ufeff"))]


def find_pictures(
    arguments: Iterable[str],
    recursive: bool = False,
    stdin: Iterable[str] = (),
    passed_over: Counter[str] | None = None,
) -> list[str]:
    """The paths of the pictures that `arguments` mean, each once, in a fixed order.

    An argument is one of these:
    - a file, whatever its name is;
    - a folder: its pictures, sorted, recognised by their suffixes; with `recursive` also those in subfolders;
    - a pattern such as "photos/**/*.jpg";
    - "-": the lines of `stdin`, one path each.
    Of a JPEG and a raw file in a folder that show the same, the JPEG is taken (see `pictures.pairs`). Videos are left
    out, and raw files without the extra [raw]; `passed_over` counts both under "video" and "raw file".
    Folders and patterns leave out hidden files, among them the "._" files of macOS. A file that does not exist is
    kept, so that it is reported like every other picture that cannot be read.
    Raises InputError when a folder or pattern holds no picture, an argument is empty or an address, or nothing was
    given.
    """
    return list(dict.fromkeys(each_picture(arguments, recursive, stdin, passed_over)))


def each_picture(
    arguments: Iterable[str],
    recursive: bool = False,
    stdin: Iterable[str] = (),
    passed_over: Counter[str] | None = None,
) -> Iterator[str]:
    """Like `find_pictures`, one by one. Those that are meant by several arguments come several times."""
    passed_over, number = Counter() if passed_over is None else passed_over, 0
    for argument in arguments:
        if not argument:
            raise InputError("one of the paths is empty: give a file, a folder or a pattern (was a variable not set?)")
        if is_address(argument):
            raise InputError(f"{one_line(argument)}: {NO_ADDRESS}")
        pictures: Iterable[str] = [argument]
        why = ""
        if argument == STDIN:
            pictures = _paths(stdin)
        elif os.path.isdir(argument):
            pictures = pictures_in(argument, recursive, passed_over)
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            pictures, why = sorted(_matching(argument)), "no file matches this pattern"
        before = number
        for path in pictures:
            number += 1
            yield path
        if number == before and argument != STDIN:
            raise InputError(f"{argument}: {why or _why_none(argument, recursive, passed_over['raw file'])}")
    if not number:
        raise InputError("no pictures were given")


def _matching(pattern: str) -> Iterator[str]:
    """The files that match. Links to folders are not followed, and hidden ones count only if the pattern names one."""
    # Unlike that of the module glob, pathlib's "**" ends where a link leads back to a folder above it. At the end of a
    # pattern it finds folders only, hence the "*".
    named = Path(pattern, "*") if pattern.endswith("**") else Path(pattern)
    hidden_too = any(part.startswith(".") for part in named.parts)
    for path in Path(named.anchor).glob(str(named.relative_to(named.anchor))):
        if path.is_file() and (hidden_too or not any(part.startswith(".") for part in path.parts)):
            yield str(path)


def in_subfolders(folder: str) -> int | None:
    """The number of pictures in the subfolders of a folder; None where one of them may not be read."""
    try:
        paths = pictures_in(folder, recursive=True)
        return sum(os.path.dirname(path) != folder.rstrip(os.sep) for path in paths)
    except OSError:
        return None


def _why_none(folder: str, recursive: bool, raw: int) -> str:
    below, what = 0 if recursive else in_subfolders(folder), "no pictures in this folder or its subfolders"
    if below is None:
        what = "no pictures in this folder itself (recursive, -r, also looks into its subfolders)"
    elif below:
        what = f"no pictures in this folder itself; {below} in its subfolders: add recursive (-r)"
    return what + (f"; {counted(raw, 'raw file')}, for which rawpy is missing: {to_install('raw')}" if raw else "")


def _give_up(error: OSError) -> None:
    raise error


def folders_in(
    arguments: Iterable[str], recursive: bool, failed: Callable[[OSError], object] = _give_up
) -> Iterator[tuple[str, list[str]]]:
    """Those arguments that are folders, and with `recursive` the folders in them, each with the names of its files.

    Hidden ones are left out. `failed` takes the error of a folder that cannot be listed, or raises it.
    """
    for folder in filter(os.path.isdir, arguments):
        for parent, folders, files in os.walk(folder, onerror=failed):
            folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
            yield parent, sorted(name for name in files if not name.startswith("."))


def pictures_in(
    folder: str,
    recursive: bool,
    passed_over: Counter[str] | None = None,
    failed: Callable[[OSError], object] = _give_up,
) -> Iterator[str]:
    """The pictures of a folder, sorted, one of those that show the same; see `folders_in`.

    `passed_over` counts the videos, and the raw files that cannot be read here.
    """
    readable = NAMES if available() else SUFFIXES
    for parent, names in folders_in([folder], recursive, failed):
        second, start = seconds(names), os.path.join(parent, "")
        for name in names:
            suffix = name[name.rfind(".") :].lower()  # a call of `splitext` for each takes long, as `join` does
            if name in second:
                continue
            if suffix in readable:
                yield start + name
            elif passed_over is not None and (suffix in VIDEOS or suffix in RAW):
                passed_over["video" if suffix in VIDEOS else "raw file"] += 1
