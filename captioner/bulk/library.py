"""Captions into a photo library: XMP sidecar files, or the pictures themselves.

A caption that a person wrote stays, wherever it is. Ours stays until it may be overwritten.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain, starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner import __version__
from captioner.bulk.moves import Digests
from captioner.bulk.outputs import Place, check_folders, journal_beside
from captioner.errors import DataError, OutputError, one_line, reason_of
from captioner.metadata import embedded, sidecars
from captioner.metadata.sidecars import Sidecars
from captioner.metadata.xmp import Entry, Held
from captioner.options import MetadataOptions

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.results import Row

_MAKER = f"captioner {__version__}"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class XmpFiles(Place):
    """An XMP sidecar file beside each picture.

    `fail` takes the path of a picture whose caption cannot be written, and what to say of it.
    """

    digests = True
    language = ""  # of the captions, once the model is known
    limits = ""  # below which pictures are skipped, if any are

    def __init__(
        self, paths: Iterable[str], options: MetadataOptions, overwrite: bool, fail: Callable[[str, str], object]
    ) -> None:
        self.journal = journal_beside(paths)
        self._options, self._overwrite, self._fail = options, overwrite, fail
        self.replaces_edited = options.overwrite_edited
        self._sidecars, self._digests = Sidecars(options.xmp_name), Digests()

    def perhaps(self, paths: Iterable[str]) -> Iterator[str]:
        """All pictures. Until they are gone through, the names in their folders are asked for only once."""
        with self._sidecars.gone_through():
            yield from paths

    def holds(self, path: str) -> bool:
        """Whether the picture has a caption that stays. Raises OutputError if none could be written for it."""
        try:
            if not _exists(path):  # as captioning will report
                return False
            if (there := self.here(path)) and there.stays(self._overwrite, self.replaces_edited):
                return True
            with suppress(DataError):  # it stays as it is
                if (other := self._elsewhere(path)) and not (other.ours or self.replaces_edited):
                    return True
            if self.limits and not self._overwrite and self._skipped(path) == self.limits:
                return True
            self._check(path)
        except (DataError, OSError) as error:
            raise OutputError(reason_of(error, path)) from error
        return False

    def write(self, rows: Iterable[Row]) -> None:
        """Write for each picture that still has no caption. One that cannot be written does not stop the others."""
        for row in rows:
            path = row["path"]
            try:
                if (row["caption"] or row.get("tags") or self.limits) and not self.holds(path):
                    if not _exists(path):  # so it was not asked what a person wrote for it
                        raise OutputError(f"{path}: has gone since it was captioned")
                    self._put_ours(row)
            except (DataError, OutputError, OSError) as error:
                if isinstance(error, OSError) and error.errno in _FULL:
                    raise
                self._fail(path, reason_of(error, path))

    def current(self, path: str) -> Held | None:
        """A person's caption before ours, and one in this place before one elsewhere."""
        found = [caption for caption in (self.here(path), self._elsewhere(path)) if caption]
        return min(found, key=lambda caption: caption.ours, default=None)

    def _put_corrected(self, path: str, text: str) -> None:
        self._check(path)
        self._put(path, Entry(text.strip(), maker=_MAKER, by_person=True))

    def _put_ours(self, row: Row) -> None:
        tags = None if row.get("tags", ()) is None else tuple(tag["word"] for tag in row.get("tags", ()))
        kept = {"picture": row.get("digest", ""), "skipped": "" if row["caption"] else self.limits}
        self._put(row["path"], Entry(row["caption"], self.language, row.get("confidence"), tags, _MAKER, **kept))

    def lost(self, folders: Iterable[tuple[str, list[str]]]) -> dict[str, Any]:
        """The sidecars whose picture is gone: of several, the newest with a person's caption, or else with ours."""
        found: dict[str, list[tuple[int, float, Path]]] = defaultdict(list)
        for file, digest in chain.from_iterable(starmap(self._sidecars.orphans, folders)):
            with suppress(DataError, OSError):  # it may have gone meanwhile
                caption = sidecars.read(file)
                found[digest].append((1 + caption.ours if caption else 3, -file.stat().st_mtime, file))
        return {digest: min(files)[-1] for digest, files in found.items()}

    def files(self, path: str) -> list[str]:
        """The picture and the others that show the same, unless there is a caption in this place."""
        return [] if self.here(path) else [path, *self._sidecars.seconds(path)]

    def follow(self, moved: dict[str, Any]) -> None:
        """Copy the sidecars of the pictures where they were. Raises OSError."""
        for path, sidecar in moved.items():
            self._sidecars.adopt(path, sidecar)

    def place(self, path: str) -> str:
        """The path and the file, and those of others that show the same."""
        return "\t".join(map(one_line, (path, *self._files(path))))

    def check(self, paths: Collection[str]) -> None:
        """The folders must be writable."""
        check_folders(chain([str(self.journal.parent)], map(os.path.dirname, paths)))

    def here(self, path: str) -> Held | None:
        return self._sidecars.held(path)

    def _elsewhere(self, path: str) -> Held | None:
        return embedded.read(path) if embedded.available() else None

    def _skipped(self, path: str) -> str:
        """The limits below which the picture was when it was skipped, if it was."""
        return sidecars.noted(self._sidecars.file(path), "skipped")

    def _check(self, path: str) -> None:
        """Raise OutputError or OSError if no caption could be written for the picture."""
        for file in self._files(path):
            if file.exists() and not os.access(file, os.W_OK):
                raise OutputError(f"{file}: is write-protected")

    def _files(self, path: str) -> list[Path]:
        return [self._sidecars.file(name) for name in (path, *self._sidecars.seconds(path))]

    def _put(self, path: str, entry: Entry) -> None:
        """Write the sidecar of a picture, and those of others that show the same, unless they have one that stays."""
        before, overwrite = self.current(path), self._overwrite or entry.by_person
        self._sidecars.write(path, self._with_digest(path, entry))
        for other in () if entry.skipped else self._sidecars.seconds(path):
            there = sidecars.read(self._sidecars.file(other))
            if not there or there == before or not there.stays(overwrite, self.replaces_edited):
                self._sidecars.write(other, self._with_digest(other, replace(entry, picture="")))

    def _with_digest(self, path: str, entry: Entry) -> Entry:
        return replace(entry, picture=entry.picture or self._digests.of(path))


class Pictures(XmpFiles):
    """The pictures themselves. Raises DeviceError without the extra [metadata]."""

    digests = False  # the caption goes where its picture goes

    def __init__(
        self, paths: Iterable[str], options: MetadataOptions, overwrite: bool, fail: Callable[[str, str], object]
    ) -> None:
        embedded.require()
        super().__init__(paths, options, overwrite, fail)

    def place(self, path: str) -> str:
        """The path."""
        return one_line(path)

    def lost(self, folders: Iterable[tuple[str, list[str]]]) -> dict[str, Any]:
        """The sidecars with a person's caption whose picture is gone; the captions of others are in the pictures."""
        found = super().lost(folders)
        return {digest: file for digest, file in found.items() if (held := sidecars.read(file)) and not held.ours}

    def here(self, path: str) -> Held | None:
        return embedded.read(path)

    def _elsewhere(self, path: str) -> Held | None:
        return self._sidecars.held(path)

    def _skipped(self, path: str) -> str:
        return embedded.noted(path, "skipped")

    def _check(self, path: str) -> None:
        embedded.check(path)

    def _put(self, path: str, entry: Entry) -> None:
        embedded.write(path, entry, self._options)


def _exists(path: str) -> bool:
    """Whether there is a file. Raises OSError where the disk does not tell."""
    try:
        os.stat(path)  # noqa: PTH116  # a Path for each of very many pictures takes long
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return True
