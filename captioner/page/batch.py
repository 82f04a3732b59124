"""A visitor's many pictures: those that wait, and what became of the others."""

from __future__ import annotations

import base64
import io
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamlit.runtime.uploaded_file_manager import UploadedFile

import captioner
from captioner.bulk.formats import sidecar_names, sidecar_text
from captioner.errors import ImageError
from captioner.inference.parallel import in_batches
from captioner.inference.reader import Reader
from captioner.inference.results import row_of
from captioner.machine import give_back_freed_memory
from captioner.page import pictures
from captioner.page.models import TURN
from captioner.page.search import Vectors, reader_of
from captioner.page.work import PART, SIDE, Work
from captioner.pictures import archives
from captioner.pictures.archives import Member
from captioner.pictures.load import ImageSource, load_image, thumbnail


class Batch(Work):
    """Uploads that are still to be captioned, and the rows and previews of those that are."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0  # pictures that were uploaded
        self.waiting: list[Iterator[list[Member]]] = []  # to be captioned
        self._names: set[str] = set()
        self._vectors: dict[Path | None, Vectors] = {}  # by the model's file
        self._turn = threading.Lock()

    def left(self) -> tuple[int, int]:
        """How many pictures are done, and how many there are."""
        return len(self.found), min(self.total, archives.MAX_FILES) if self.waiting else len(self.found)

    def add(self, files: Sequence[UploadedFile]) -> None:
        """Let pictures and zips wait to be captioned, after those that are there already."""
        self.total += archives.count(files)
        self.waiting.append(in_batches(archives.members(files, self._names), PART))

    def advance(self, model: captioner.Captioner) -> bool:
        """Caption the next few pictures. False when none is left.

        A script that Streamlit interrupts between two calls loses nothing, because the next one goes on from there.
        """
        with self._turn:  # before a reload, the tab's former session may still be at work
            while self.waiting:
                if part := next(self.waiting[0], None):
                    named = [(member.name, self._prepared(model, member)) for member in part]
                    with TURN:
                        rows = list(map(row_of, model.caption_together(named, store=self._store(model))))
                    self.found |= {row["path"]: row for row in rows}
                    return True
                del self.waiting[0]
                give_back_freed_memory()
            return self._encode(model)

    def ranked(self, model: captioner.Captioner, reader: Reader, text: str) -> list[str] | None:
        """The pictures that could be read, those that a text describes best first."""
        vectors = self._vectors.setdefault(model.path, Vectors(reader))
        self.encoded = len(vectors.found), len(vectors.found) + len(missing := self._missing(vectors))
        return None if missing else vectors.ranked(text)

    def _store(self, model: captioner.Captioner) -> Vectors | None:
        """What is kept of pictures to find them with this model. None where it finds none."""
        reader = reader_of(model)
        return self._vectors.setdefault(model.path, Vectors(reader)) if reader else None

    def _missing(self, vectors: Vectors) -> list[str]:
        """Pictures that another model has captioned. Their files were freed, but there are previews of them."""
        return [path for path in self.found if self.previews.get(path) and path not in vectors.found]

    def _encode(self, model: captioner.Captioner) -> bool:
        """Encode a few pictures that a search waits for. False if there are none."""
        if not (self.choice.described and (vectors := self._store(model))):
            return False
        part = [(path, self.previews[path].partition(",")[2]) for path in self._missing(vectors)[:PART]]
        if part:
            with TURN:
                model.caption_together([(path, base64.b64decode(data)) for path, data in part], store=vectors)
        return bool(part)

    def clear(self) -> None:
        """Forget all pictures and captions."""
        with self._turn, self.lock:
            done = self.done
            Batch.__init__(self)
            self.done = done

    def _prepared(self, model: captioner.Captioner, member: Member) -> ImageSource | ImageError:
        """A picture as the model sees it, whose preview is then among the others, or why there is none."""
        if member.data is None:
            return ImageError(member.error)
        try:
            with TURN:
                image = load_image(member.data, max_pixels=pictures.MAX_PIXELS, smallest=SIDE)
                prepared = model.prepare(member.data)  # read as the command reads it
                self.previews[member.name] = thumbnail(image, SIDE) or ""
            return prepared
        except ImageError as error:
            return ImageError(pictures.reason(error))


def sidecars(work: Work) -> bytes:
    """A zip with a text file for each picture, named as the command's sidecars are."""
    rows = work.captioned()
    name = sidecar_names([row["path"] for row in rows])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for row in rows:
            archive.writestr(Path(name(row["path"], ".txt")).as_posix(), sidecar_text(row))
    return file.getvalue()
