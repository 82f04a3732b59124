"""Paths, replacing files as a whole, reading text and JSON with care, and digests."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeAlias

from captioner.errors import DataError

AnyPath: TypeAlias = "str | os.PathLike[str]"
TEMPORARY = ".captioner-"  # the first letters of the names of temporary files
_MARKS = {  # byte-order marks; that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    **dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32"),
    **dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16"),
}
# What text in Western languages does not have, although Windows-1252 has a character for it.
_NOT_WESTERN = re.compile(r"[^\x00-\x7f\xa0À-ÖØ-öø-ÿŒœŠšŽžŸ‘’“”–—…•«»¿¡°€£©®´·ºª½¼×]|[À-ÖØ-öø-ÿ]{3}")
_BINARY = re.compile(r"[\0-\x08\x0e-\x1f\x7f\ufffd-\uffff]")
_CODE_PAGES = ["cp1250", "cp1251", "cp1253", "gb18030", "cp932", "cp949", "big5"]  # and Windows-1252
_TELLING = 4  # so many letters tell other code pages apart
_FEW = 32  # questions about a folder before it is listed: it may have very many files
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how .xlsx and .ods begin, which are zip files, and .xls


def listed(paths: AnyPath | Iterable[AnyPath]) -> list[str]:
    """One path or several, as the texts that stand for them in results."""
    return [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def without_suffix(path: str) -> str:
    """A path without the suffix of its name, as pathlib has it; a Path for each of very many takes long."""
    name = os.path.basename(path)  # noqa: PTH119
    dot = name.rfind(".")
    return path[: dot - len(name)] if 0 < dot < len(name) - 1 else path


class Beside:
    """Which files with some endings there may be, by the names that were in their folder when it was listed.

    To list a folder once is faster than to look for very many files that are not there. So it is listed after a few
    questions. One folder is remembered, because files come folder by folder. This is for a single pass over them.
    """

    def __init__(self, endings: Iterable[str]) -> None:
        self._endings = tuple(map(_alike, endings))
        self._folder, self._asked = "", 0
        self._names: set[str] | None = None

    def may_be(self, base: str) -> bool:
        """Whether there may be a file that is called so, with one of the endings after it."""
        folder, name = os.path.split(base)
        if folder != self._folder:
            self._folder, self._asked, self._names = folder, 0, None
        self._asked += 1
        if self._asked == _FEW:
            self._names = self._listed(folder)
        return self._names is None or _alike(name) in self._names

    def _listed(self, folder: str) -> set[str] | None:
        """The names in a folder that have one of the endings, without it; None if it cannot be listed."""
        try:
            names = [name for name in map(_alike, os.listdir(folder or ".")) if name.endswith(self._endings)]  # noqa: PTH208
        except (OSError, ValueError):  # its name may not be valid text
            return None
        return {name.removesuffix(end) for name in names for end in self._endings if name.endswith(end)}


def _alike(name: str) -> str:
    """What names have in common that some disks take for the same."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that takes the place of `path` when the block ends without an error.

    Readers see either the old content or the new one, even when the process is killed or the disk is full. Links and
    permissions stay as they are. What is not a regular file, such as /dev/stdout, is written to directly. Text is
    UTF-8 with "\\n" line ends on every system. The modes "x" and "xb" are for a file that must not be there at the end.
    Raises OSError, which names `path`, also when `path` is write-protected.
    """
    # File names need not be valid text. They are written as they were read.
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n", "errors": "surrogateescape"}
    if path.exists() and not path.is_file():
        with path.open(mode, **text) as file:  # type: ignore[call-overload]  # the mode is not a literal
            yield file
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name does not contain that of `path`, which may already have the greatest length. It is random, so that nobody
    # can put a link in its place.
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open(mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]  # the mode is not a literal
            if path.exists():
                if not os.access(path, os.W_OK):  # renaming does not check that
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        if "x" in mode:
            with suppress(OSError):  # of a file system without hard links; one that finds `path` is raised below
                os.link(temporary, path)
                return
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        temporary.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):  # None where writing failed
            error.filename = str(path)  # people do not know the name of the temporary file
        raise
    finally:
        with suppress(OSError):  # where nothing can be written, there is also nothing to delete
            temporary.unlink()


def remove_temporaries(folder: Path, age: float = 0.0) -> None:
    """Delete the temporary files of processes that were killed.

    Those that changed in the last `age` seconds stay. Without an age, no other process may be writing into the folder.
    """
    for file in folder.glob(f"{TEMPORARY}*.tmp"):
        with suppress(OSError):  # another process may delete them, too
            if time.time() - file.stat().st_mtime >= age:
                file.unlink()


def cache_folder() -> Path:
    """The folder of the cache: $CAPTIONER_CACHE, or `captioner` in the user's folder for caches."""
    by_default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "captioner"
    return Path(os.environ.get("CAPTIONER_CACHE") or by_default)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of(path: Path, content: Any) -> str:
    """The SHA-256 of a file's content, or of what was read from a folder: plain data that JSON can hold."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest() if path.is_dir() else sha256_of(path)


def decoded(data: bytes) -> tuple[str, str]:
    """The text in a file's bytes, without a byte-order mark, and the name of its encoding.

    It is UTF-8, or UTF-16 or UTF-32 with or without a mark, or the Windows code page that the text makes likely.
    Raises DataError if nothing fits; the message says where the first byte is that is not UTF-8.
    """
    if data.startswith(_SPREADSHEETS):
        raise DataError('a spreadsheet or a zip file, not text: save the table as csv in UTF-8 ("CSV UTF-8" in Excel)')
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    for encoding in [marked] if marked else [_unmarked(data), "utf-8"]:
        with suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            if marked or encoding == "utf-8" or not _BINARY.search(text):
                return text, encoding
    if not marked and (page := _code_page(data)):
        return data.decode(page), page
    detail = marked.upper() if marked else f"UTF-8 ({_first_bad_byte(data)})"
    raise DataError(f"not a text file in {detail}: save it as UTF-8")


def is_binary(data: bytes) -> bool:
    """Whether there are bytes of 0 that are not those of text in UTF-16 or UTF-32, as in most pictures."""
    if b"\0" not in data or any(map(data.startswith, _MARKS)):
        return False
    start = data[: 1 << 16]
    try:
        text = start[: len(start) // 4 * 4].decode(_unmarked(data))
    except UnicodeDecodeError:
        return True
    return bool(_BINARY.search(text))


def _unmarked(data: bytes) -> str:
    """The encoding of text without a mark, as the zeros in it show: UTF-16, UTF-32, or else UTF-8."""
    start = data[: 1 << 16]
    zeros = [start[place::4].count(0) for place in range(4)]
    if not any(zeros) or len(data) % 2:
        return "utf-8"
    for encoding, always, nearly_always in (("utf-32-le", 3, 2), ("utf-32-be", 0, 1)):
        if zeros[always] * 4 == len(start) and zeros[nearly_always] * 8 > len(start):
            return encoding
    return "utf-16-be" if zeros[0] + zeros[2] > zeros[1] + zeros[3] else "utf-16-le"


def _code_page(data: bytes) -> str | None:
    """The Windows code page that fits text that is not UTF-8; None where none does, or two fit equally well."""
    lenient = data.decode("utf-8", "replace")
    bad, good = lenient.count("\ufffd"), sum(letter > "\x7f" and letter != "\ufffd" for letter in lenient)
    if good > bad:  # damaged UTF-8
        return None
    with suppress(UnicodeDecodeError):
        if not good and not _NOT_WESTERN.search(data.decode("cp1252")):
            return "cp1252"
    from charset_normalizer import from_bytes  # takes long to import, and few files need it

    matches = sorted(from_bytes(data, cp_isolation=_CODE_PAGES), key=lambda match: (match.chaos, -match.coherence))
    fits = [(match.chaos, match.coherence) for match in matches[:2]]
    if not matches or fits[1:] == fits[:1]:
        return None
    letters = data.decode(matches[0].encoding, "ignore")
    told = sum(letter > "\x7f" for letter in letters) >= _TELLING and not _BINARY.search(letters)
    return matches[0].encoding if told else None


def _first_bad_byte(data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.rfind(b"\n", 0, error.start) + 1
        number, byte = data.count(b"\n", 0, line) + 1, data[error.start : error.start + 1]
        return f"line {number} has {byte!r} at byte {error.start - line}"
    return "it has zero bytes"


def read_json(file: Path, what: str = "a JSON file") -> Any:
    """The content of a JSON file in any encoding that `decoded` knows.

    `what` is what the file should be, for the message: "{file}: not {what} (...)".
    Raises DataError when the file is empty, is not JSON or is nested too deeply; OSError when it cannot be read.
    """
    data = file.read_bytes()
    try:
        text = decoded(data)[0]
        if text.strip():
            return json.loads(text)
    except (DataError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not {what} ({error})") from error
    raise DataError(f"{file}: the file is empty")
