"""A visitor's many pictures: those that wait, and what became of the others."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from streamlit.runtime.uploaded_file_manager import UploadedFile

import captioner
from captioner.bulk.formats import sidecar_paths, sidecar_text
from captioner.errors import ImageError
from captioner.inference.parallel import in_batches
from captioner.inference.results import Row, row_of
from captioner.machine import give_back_freed_memory
from captioner.page import pictures
from captioner.page.models import TURN
from captioner.pictures import archives
from captioner.pictures.archives import Member
from captioner.pictures.load import SIDE as THUMBNAIL
from captioner.pictures.load import ImageSource, load_image, thumbnail

PART = 16  # pictures after which other visitors get their turn


@dataclass
class Batch:
    """Rows for the output formats, thumbnails by name, and the uploads that are still to be captioned."""

    rows: list[Row] = field(default_factory=list)
    thumbnails: dict[str, str] = field(default_factory=dict)
    total: int = 0  # pictures that were uploaded
    _waiting: list[Iterator[list[Member]]] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def captioned(self) -> list[Row]:
        """The rows of pictures that have a caption."""
        return [row for row in self.rows if "caption" in row]

    def add(self, files: Sequence[UploadedFile]) -> None:
        """Let pictures and zips wait to be captioned, after those that are there already."""
        self.total += archives.count(files)
        self._waiting.append(in_batches(archives.members(files, self._names), PART))

    def advance(self, model: captioner.Captioner) -> bool:
        """Caption the next few pictures. False when none is left.

        A script that Streamlit interrupts between two calls loses nothing, because the next one goes on from there.
        """
        with self._turn:  # before a reload, the tab's former session may still be at work
            while self._waiting:
                if part := next(self._waiting[0], None):
                    named = [(member.name, self._prepared(model, member)) for member in part]
                    with TURN:
                        self.rows += map(row_of, model.caption_together(named))
                    return True
                del self._waiting[0]
                give_back_freed_memory()
        return False

    def clear(self) -> None:
        """Forget all pictures and captions."""
        with self._turn:
            for each in (self.rows, self.thumbnails, self._waiting, self._names):
                each.clear()
            self.total = 0

    def sidecars(self) -> bytes:
        """A zip with a text file for each picture, named as the command's sidecars are."""
        paths = sidecar_paths(row["path"] for row in self.captioned)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for row in self.captioned:
                archive.writestr(paths[row["path"]].as_posix(), sidecar_text(row))
        return file.getvalue()

    def _prepared(self, model: captioner.Captioner, member: Member) -> ImageSource | ImageError:
        """A picture as the model sees it, whose thumbnail is then among the others, or why there is none."""
        if member.data is None:
            return ImageError(member.error)
        try:
            with TURN:
                image = load_image(member.data, max_pixels=pictures.MAX_PIXELS, smallest=THUMBNAIL)
                prepared = model.prepare(member.data)  # read as the command reads it
                self.thumbnails[member.name] = thumbnail(image) or ""
            return prepared
        except ImageError as error:
            return ImageError(pictures.reason(error))
