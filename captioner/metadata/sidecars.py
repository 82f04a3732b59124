"""XMP sidecar files: which file belongs to which picture, and the caption in it.

Programs name them in two ways. digiKam and darktable write photo.jpg.xmp. Adobe's write photo.xmp, which a photo.nef
beside photo.jpg would share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captioner.errors import DataError
from captioner.files import replacing
from captioner.metadata.xmp import Entry, Held, held, merged
from captioner.pictures.load import SUFFIXES

_ENDINGS = (".xmp", ".XMP")
_RAW = {".nef", ".nrw", ".cr2", ".cr3", ".arw", ".srf", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"}
_SHARING = SUFFIXES | _RAW | {".mov", ".mp4"}  # what may have a photo.xmp of its own


class Sidecars:
    """The sidecar files of pictures. A new one is called photo.jpg.xmp ("full") or photo.xmp ("stem").

    The former is the default, because no two pictures share it. A sidecar that is there already is used, whatever its
    name. Of a photo.xmp that other files beside the picture share, only what a person wrote in it counts.
    """

    def __init__(self, naming: str = "full") -> None:
        self._naming = naming
        self._stems: dict[Path, Counter[str]] = {}  # of each folder, as it was when first looked at

    def held(self, picture: str) -> Held | None:
        """The caption in the sidecars of a picture, a person's before ours. Raises DataError and OSError."""
        files = [file for base in _bases(picture) if (file := _existing(base))]
        target = self.file(picture)
        found = [(file, caption) for file in files if (caption := read(file))]
        kept = [caption for file, caption in found if not caption.ours or file == target]
        return min(kept, key=lambda caption: caption.ours, default=None)

    def file(self, picture: str) -> Path:
        """The sidecar that a caption is written to."""
        full, stem = _bases(picture)
        shared = self._shared(Path(picture))
        if there := _existing(full) or (None if shared else _existing(stem)):
            return there
        return Path((stem if self._naming == "stem" and not shared else full) + _ENDINGS[0])

    def write(self, picture: str, entry: Entry) -> None:
        """Put a caption into the sidecar, and leave all else in it as it is. Raises DataError and OSError."""
        file = self.file(picture)
        with _named(file):
            content = merged(before := _content(file), entry)
        if content != before:  # other programs take a new time for a change, and may answer with another
            with replacing(file, "wb") as new:
                new.write(content)

    def _shared(self, picture: Path) -> bool:
        folder = picture.parent
        if folder not in self._stems:
            there = folder.iterdir() if folder.is_dir() else ()
            self._stems[folder] = Counter(file.stem.lower() for file in there if file.suffix.lower() in _SHARING)
        return self._stems[folder][picture.stem.lower()] > 1


def read(file: Path) -> Held | None:
    """The caption in a sidecar; None where it has none. Raises DataError, which names the file, and OSError."""
    with _named(file):
        content = _content(file)
        return held(content) if content else None


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


def _bases(picture: str) -> tuple[str, str]:
    """What the names of sidecars are made of: the picture's name with and without its suffix."""
    return picture, str(Path(picture).with_suffix(""))


def _existing(base: str) -> Path | None:
    return next((file for ending in _ENDINGS if (file := Path(base + ending)).is_file()), None)
