"""XMP sidecar files: which file belongs to which picture, and the caption in it.

Programs name them in two ways. digiKam and darktable write photo.jpg.xmp. Adobe's write photo.xmp, which belongs to the
raw file if photo.jpg and photo.nef are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from captioner.errors import DataError
from captioner.files import Beside, replacing, without_suffix
from captioner.metadata import xmp
from captioner.metadata.xmp import Entry, Held, held, merged
from captioner.pictures.load import NAMES
from captioner.pictures.pairs import LIVE, by_stem, seconds
from captioner.pictures.raw import RAW

_ENDINGS = (".xmp", ".XMP")
_SHARING = NAMES | LIVE  # what may have a photo.xmp of its own


class Sidecars:
    """The sidecar files of pictures. A new one is called photo.jpg.xmp ("full") or photo.xmp ("stem").

    The former is the default, because no two pictures share it. A sidecar that is there already is used, whatever its
    name. Of a photo.xmp that other files beside the picture share, only what a person wrote in it counts. So does what
    they wrote in the sidecar of another file that shows the same (see `pictures.pairs`).
    """

    def __init__(self, naming: str = "full") -> None:
        self._naming = naming
        self._beside: Beside | None = None  # while the folders are gone through
        # Names that others share but for the suffix, by their stem, as folders were when first looked at.
        self._names: dict[str, dict[str, list[str]]] = {}

    @contextmanager
    def gone_through(self) -> Iterator[None]:
        """Meanwhile, take the names that are in a folder at first for those that stay: it is listed once."""
        self._beside = Beside(_ENDINGS)
        try:
            yield
        finally:
            self._beside = None

    def held(self, picture: str) -> Held | None:
        """The caption in the sidecars of a picture, a person's before ours. Raises DataError and OSError."""
        paths = (picture, *self._others(picture))
        bases = dict.fromkeys(base for path in paths for base in (path, without_suffix(path)))
        if not (files := [file for base in bases if (file := self._existing(base))]):
            return None
        target = self.file(picture)
        found = [(file, caption) for file in files if (caption := read(file))]
        kept = [caption for file, caption in found if not caption.ours or file == target]
        return min(kept, key=lambda caption: caption.ours, default=None)

    def file(self, picture: str) -> Path:
        """The sidecar that a caption is written to."""
        stem, shared = without_suffix(picture), self._shared(picture)
        if there := self._existing(picture) or (None if shared else self._existing(stem)):
            return there
        return Path((stem if self._naming == "stem" and not shared else picture) + _ENDINGS[0])

    def _existing(self, base: str) -> Path | None:
        if self._beside and not self._beside.may_be(base):
            return None
        return next((Path(base + ending) for ending in _ENDINGS if os.path.isfile(base + ending)), None)

    def write(self, picture: str, entry: Entry) -> None:
        """Put a caption into the sidecar, and leave all else in it as it is. Raises DataError and OSError."""
        file = self.file(picture)
        with _named(file):
            content = merged(before := _content(file), entry)
        if content != before:  # other programs take a new time for a change, and may answer with another
            with replacing(file, "wb") as new:
                new.write(content)

    def adopt(self, picture: str, sidecar: Path) -> None:
        """Copy another sidecar to that of a picture; where one is without a caption, only the caption.

        Raises DataError and OSError.
        """
        file = self.file(picture)
        if _content(file) is None:
            with replacing(file, "wb") as new:
                new.write(sidecar.read_bytes())
        elif (there := read(sidecar)) and not read(file):
            self.write(picture, Entry(there.text, confidence=there.confidence, by_person=not there.ours))

    def orphans(self, folder: str, names: Iterable[str]) -> Iterator[tuple[Path, str]]:
        """The sidecars among the names in a folder whose picture is gone, with its digest; those without one left out.

        Those that are damaged or cannot be read are left out, too.
        """
        ours = [name for name in names if name.endswith(_ENDINGS)]
        there, stems = (set(map(str.lower, names)), by_stem(names, _SHARING)) if ours else (set(), {})
        for file in (Path(folder, name) for name in ours):
            of = file.with_suffix("")
            if of.name.lower() in there if of.suffix.lower() in _SHARING else of.name.lower() in stems:
                continue
            digest = ""
            with suppress(DataError, OSError):
                digest = noted(file, "picture")
            if digest:
                yield file, digest

    def seconds(self, picture: str) -> list[str]:
        """The other files that show the same, unless one of them stands for the picture."""
        return [] if os.path.basename(picture) in seconds(self._alike(picture)) else self._others(picture)

    def _others(self, picture: str) -> list[str]:
        folder, itself = os.path.split(picture)
        if len(alike := self._alike(picture)) == 1:
            return []
        second = seconds(alike)
        first = second.get(itself, itself)
        return [os.path.join(folder, name) for name in alike if name != itself and first in (name, second.get(name))]

    def _shared(self, picture: str) -> bool:
        names, raw = self._alike(picture), os.path.splitext(picture)[1].lower() in RAW
        return sum(not raw or os.path.splitext(name)[1].lower() in RAW for name in names) > 1

    def _alike(self, picture: str) -> list[str]:
        """A picture, and the files beside it that have its name but for the suffix, and may have sidecars."""
        folder, name = os.path.split(picture)
        if folder not in self._names:
            there = by_stem(sorted(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else (), _SHARING)
            self._names[folder] = {stem: names for stem, names in there.items() if len(names) > 1}
        return self._names[folder].get(os.path.splitext(name.lower())[0], [name])


def read(file: Path) -> Held | None:
    """The caption in a sidecar; None where it has none. Raises DataError, which names the file, and OSError."""
    with _named(file):
        return held(_content(file))


def noted(file: Path, what: str) -> str:
    """What `xmp.noted` has of a sidecar. Raises DataError, which names the file, and OSError."""
    with _named(file):
        return xmp.noted(_content(file), what)


@contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{file}: {error}: mend it or move it away") from error


def _content(file: Path) -> bytes | None:
    """What is in a sidecar; None where there is none, or an empty file."""
    content = file.read_bytes() if file.is_file() else b""
    return content if content.strip(b"\0 \r\n\t") else None
