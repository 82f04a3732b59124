"""Where captions go: onto a stream, into one file, or into a file beside each picture.

An output says which pictures have captions there already. Those captions stay, unless it may overwrite them. It looks
again when it writes, because a person may have written meanwhile.
"""

from __future__ import annotations

import codecs
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from captioner.bulk.existing import ADDED_TO, REMEDY, Existing, read_existing
from captioner.bulk.formats import Writer, in_ascii, sidecar_names, sidecar_text
from captioner.bulk.moves import stamp_of
from captioner.data.readers.folders import TEXTS, beside, texts_in
from captioner.errors import OutputError, one_line
from captioner.files import Beside, remove_temporaries, replacing, without_suffix
from captioner.metadata.xmp import Held

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.results import Row

_ABANDONED = 3600.0  # seconds after which no run can still be writing a temporary file
_WITH_DIGESTS = ("jsonl", "csv")


class Output:
    """What a run needs to know of the place where its captions go."""

    name = ""  # of the file, where there is one for all pictures
    journal: Path | None = None  # where the run keeps what it has done
    whole = False  # what was there is replaced, so a later run cannot add a picture that failed
    digests = False  # whether the digest of each picture is kept with its caption

    def holds(self, path: str) -> bool:
        """Whether a picture has captions that stay. Raises OutputError if none could be written for this picture."""
        return False

    def perhaps(self, paths: Iterable[str]) -> Iterable[str]:
        """The pictures that may have captions here. Only for these, `holds` has to be asked."""
        return paths

    def gone(self) -> list[str]:
        """The pictures with captions here that are not where their path says."""
        return []

    def lost(self, folders: Iterable[tuple[str, list[str]]]) -> dict[str, Any]:
        """By the digest of their picture, the captions whose picture is gone; `folders` are searched for them."""
        return {}

    def files(self, path: str) -> list[str]:
        """The files whose captions would belong to a picture that has none."""
        return [path]

    def follow(self, moved: dict[str, Any]) -> None:
        """Give files the captions that `lost` had under their digests. What was there stays."""
        raise NotImplementedError

    def place(self, path: str) -> str:
        """What a dry run says of a picture: its path, and its file where it has one of its own."""
        return one_line(path)

    def check(self, paths: Collection[str]) -> None:
        """Raise OutputError if captions of these pictures could not be written."""

    def write(self, rows: Iterable[Row]) -> None:
        """Write the captions. Raises OutputError when something came in the way since the beginning."""
        raise NotImplementedError


class Place(Output):
    """An output that keeps the caption of each picture by itself, so that a person can correct one at a time."""

    journal: Path
    replaces_edited = False  # whether a correction may replace the caption of another person

    def current(self, path: str) -> Held | None:
        """The caption that counts for a picture, wherever it is. Raises DataError and OSError."""
        raise NotImplementedError

    def correct(self, path: str, text: str, seen: str | None = None) -> None:
        """Put what a person wrote in place of our caption, or of the text that they saw there and changed.

        An empty text means that they want no caption. Raises OutputError if another person's caption is there, or if
        nothing can be written; DataError if what is there is damaged; and OSError. Nothing is changed then.
        """
        self._check_seen(path, text, seen)
        if (here := self.here(path)) is None or here.ours or here.text != text:
            _clear_away(Path(path).parent)
            self._put_corrected(path, text)

    def restore(self, row: Row, seen: str) -> None:
        """Put our caption back in place of a correction, the text `seen`; tags stay. Raises what `correct` raises."""
        self._check_seen(row["path"], seen)
        _clear_away(Path(row["path"]).parent)
        self._put_ours({**row, "tags": None})

    def here(self, path: str) -> Held | None:
        """The caption in this place."""
        return self.current(path)

    def _check_seen(self, path: str, *texts: str | None) -> None:
        """Raise OutputError if there is a caption that is neither ours nor one of these texts."""
        if (there := self.current(path)) and not (there.ours or there.text in texts or self.replaces_edited):
            remedy = "it is kept; overwrite edited (--overwrite-edited) replaces it"
            raise OutputError(f"{path}: has another caption, which a person may have written: {remedy}")

    def _put_corrected(self, path: str, text: str) -> None:
        raise NotImplementedError

    def _put_ours(self, row: Row) -> None:
        """Our caption in place of whatever is there."""
        self._put_corrected(row["path"], row["caption"])


class Stream(Output):
    """An open text file, such as stdout."""

    def __init__(self, stream: TextIO, format: str, render: Writer) -> None:
        self._stream, self._format, self._render = stream, format, render
        self.digests = format in _WITH_DIGESTS

    def write(self, rows: Iterable[Row]) -> None:
        """Write row by row."""
        pieces = self._render(rows)
        if (getattr(self._stream, "encoding", None) or "utf-8").lower().replace("_", "-") != "utf-8":
            pieces = in_ascii(self._format, pieces)
        self._stream.writelines(pieces)


class OneFile(Output):
    """A file. Text, jsonl and csv are added to; other formats can only be written whole.

    Raises OutputError for a file that exists and neither can be added to nor may be overwritten.
    """

    def __init__(self, file: Path, format: str, num_captions: int, render: Writer, overwrite: bool) -> None:
        self._file, self._format, self._num_captions, self._render = file, format, num_captions, render
        self._overwrite, self.whole, self.name = overwrite, overwrite or format not in ADDED_TO, str(file)
        if file.is_file() or not file.exists():  # unlike /dev/stdout
            self.journal = file.with_name(file.name + ".journal")
        self._existing = self._look()
        columns = self._existing.columns if self._existing else ()
        self.digests = format in _WITH_DIGESTS and (not columns or "digest" in columns)

    def _look(self) -> Existing | None:
        if self._overwrite:
            return None
        if self._format in ADDED_TO:
            return read_existing(self._file, self._format, self._num_captions)
        if self._file.is_file() and self._file.stat().st_size:
            raise OutputError(f"{self._file}: exists, and {self._format} cannot be added to: {REMEDY}")
        return None

    def perhaps(self, paths: Iterable[str]) -> Iterable[str]:
        """All pictures if there is a file, and otherwise not one."""
        return paths if self._existing else ()

    def holds(self, path: str) -> bool:
        """Whether the picture has a row in the file."""
        return self._existing is not None and self._existing.holds(path)

    def gone(self) -> list[str]:
        """The pictures that only the file still knows."""
        return sorted(self._existing.gone) if self._existing else []

    def lost(self, folders: Iterable[tuple[str, list[str]]]) -> dict[str, Any]:
        """The paths of pictures that only the file still knows."""
        gone = self._existing.gone.items() if self._existing else ()
        return {digest: path for path, digest in gone if digest}

    def follow(self, moved: dict[str, Any]) -> None:
        """Add the rows of other paths once more for these."""
        self._write(lambda existing: existing.again(self._file, moved) if existing else ())
        self._existing = self._look()

    def check(self, paths: Collection[str]) -> None:
        """The file and its folder must be writable, and the file none of the pictures."""
        if not self.journal:
            return
        check_folder(self._file.parent, self._file)
        if self._file.exists() and not os.access(self._file, os.W_OK):
            raise OutputError(f"{self._file}: is write-protected")
        # What is not overwritten is known to hold captions.
        if self._overwrite and self._file.is_file():
            stamp, place = stamp_of(self.name), os.path.realpath(self._file)
            if any(stamp_of(path) == stamp and os.path.realpath(path) == place for path in paths):
                raise OutputError(f"{self._file}: is one of the pictures: give another file")

    def write(self, rows: Iterable[Row]) -> None:
        """Replace the file by one that begins with the same bytes."""
        self._write(lambda existing: existing.more(rows) if existing else self._render(rows))

    def _write(self, texts: Callable[[Existing | None], Iterable[str]]) -> None:
        existing = self._look()
        with replacing(self._file, "wb") as file:
            if existing:
                with self._file.open("rb") as old:
                    shutil.copyfileobj(old, file)
            elif self._format == "csv":
                file.write(codecs.BOM_UTF8)  # by which Excel knows UTF-8
            for text in texts(existing):
                file.write(text.encode(errors="surrogateescape"))


class Sidecars(Place):
    """A text file beside each picture. One that exists is kept, even an empty one.

    Without an `extension` a new file is a .txt, and a .caption that is there counts as well.
    """

    def __init__(
        self, paths: Collection[str], overwrite: bool = False, extension: str = "", prefix: str = "", suffix: str = ""
    ) -> None:
        self._extensions = (extension,) if extension else TEXTS[:2]
        self._named = sidecar_names(paths)
        self._prefix, self._suffix, self._overwrite = prefix, suffix, overwrite
        self.whole = self.replaces_edited = overwrite
        self.journal = journal_beside(paths)

    def perhaps(self, paths: Iterable[str]) -> Iterator[str]:
        """Those with a text beside them: to list a folder once is faster than to look for the texts of each picture."""
        beside = Beside(self._extensions)
        for path in () if self._overwrite else paths:
            if beside.may_be(path) or beside.may_be(without_suffix(path)):
                yield path

    def holds(self, path: str) -> bool:
        """Whether the picture has a file."""
        return not self._overwrite and self._there(path) is not None

    def place(self, path: str) -> str:
        """The path and the file."""
        return f"{one_line(path)}\t{one_line(self._file(path))}"

    def check(self, paths: Collection[str]) -> None:
        """The folders must be writable, and no folder in the place of a file."""
        folders = dict.fromkeys(map(os.path.dirname, paths))
        extension = self._extensions[-1]
        for path in paths if any(_has_folder(folder, extension) for folder in folders) else ():
            if (file := self._file(path)).is_dir():
                raise OutputError(f"{file}: is a folder, where the captions of a picture should go")
        check_folders([str(self.journal.parent), *folders])

    def write(self, rows: Iterable[Row]) -> None:
        """Write a file for each picture that has a caption and still has no file."""
        for row in rows:
            if row["caption"] and not self.holds(row["path"]):
                with replacing(self._file(row["path"])) as text:
                    text.write(sidecar_text(row, self._prefix, self._suffix))

    def current(self, path: str) -> Held | None:
        """The first line of the file. Nobody knows who wrote it, so it counts as a person's."""
        file = self._there(path)
        return Held(texts_in(file)[0], False) if file else None

    def _there(self, path: str) -> Path | None:
        """The file that counts for a picture; one that it shares with another picture, too, as when it is read."""
        return next(iter(beside(path, self._extensions)), None)

    def _file(self, path: str) -> Path:
        """The file to write to: that of the picture alone."""
        if there := self._there(path):
            own = (name for end in self._extensions for name in (path + end, self._named(path, end)))
            if there in map(Path, own):
                return there
        return Path(self._named(path, self._extensions[-1]))

    def _put_corrected(self, path: str, text: str) -> None:
        there = self._there(path)
        others = texts_in(there)[1:] if there else []
        with replacing(self._file(path)) as file:
            file.writelines(f"{line}\n" for line in [one_line(text), *others] if line)


def _has_folder(folder: str, extension: str) -> bool:
    """Whether one of the folders in a folder may have this extension: yes, if it cannot be listed."""
    end = extension.lower()
    try:
        with os.scandir(folder or ".") as entries:
            return any(entry.name.lower().endswith(end) and entry.is_dir() for entry in entries)
    except (OSError, ValueError):  # its name may not be valid text
        return True


def journal_beside(paths: Iterable[str]) -> Path:
    """The journal of captions that go beside or into pictures: in the deepest folder that holds all of them."""
    folders = dict.fromkeys(map(os.path.dirname, paths))
    return Path(os.path.commonpath([Path(folder).absolute() for folder in folders])) / ".captioner.journal"


def check_folders(folders: Iterable[str]) -> None:
    """Call `check_folder` for those that are there. If one is not, its pictures are not either, as will be reported."""
    for folder in filter(Path.is_dir, map(Path, dict.fromkeys(folders))):
        check_folder(folder, folder)


def check_folder(folder: Path, output: Path) -> None:
    """Raise OutputError unless files can be made in a folder. What runs that were killed left there is cleared away."""
    if not folder.exists():
        raise OutputError(f"{output}: cannot be written: there is no folder {folder}: make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):  # permissions alone do not tell, as on disks that may only be read
            pass
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({folder}: {error.strerror})") from error
    _clear_away(folder)


@cache  # a folder may have many files to go through, and captions are corrected one by one
def _clear_away(folder: Path) -> None:
    """Delete what runs that were killed left in a folder."""
    remove_temporaries(folder, age=_ABANDONED)
