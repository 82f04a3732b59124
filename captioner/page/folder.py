"""A folder of this machine, opened with `captioner app --folder`: each caption is on disk as soon as it is there.

What the browser sends is looked up among the pictures that were found here; it never becomes a path.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import streamlit as st

import captioner
from captioner.bulk.library import XmpFiles
from captioner.bulk.moves import Digests
from captioner.bulk.reuse import Reuse, store_of
from captioner.bulk.wanted import place_of
from captioner.errors import CaptionerError, ImageError
from captioner.inference.reader import Reader
from captioner.inference.results import Row, row_of
from captioner.inference.trust import NOT_SURE
from captioner.network.header import language_of
from captioner.page.models import TURN
from captioner.page.search import FileSearch
from captioner.page.work import PAGE, PART, SIDE, Work
from captioner.pictures.find import find_pictures
from captioner.pictures.load import thumbnail

_BIT = 0.2  # seconds that a bit of work takes
_PREVIEWS = 8 * PAGE  # that are kept
_KEPT = ("caption", "confidence", "familiar", "unsure")  # of a row; all of it would fill the memory


@st.cache_resource(show_spinner=False)
def opened(folder: str, format: str) -> Folder:
    """The folder, opened once for all tabs. Raises InputError, OutputError and DeviceError."""
    return Folder(folder, format)


class Folder(Work):
    """The pictures of a folder and its subfolders. Links are followed only to pictures inside it."""

    def __init__(self, folder: str, format: str) -> None:
        super().__init__()
        self._root = os.path.realpath(folder)
        pictures = [path for path in find_pictures([self._root], recursive=True) if self._inside(path)]
        self._files = {path[len(self._root.rstrip(os.sep)) + 1 :]: path for path in pictures}
        self._place = place_of(format, pictures, fail=self._fail)
        self._place.check(pictures)
        self._unread, self._waiting = dict.fromkeys(self._files), list[str]()
        self._least = 0.0  # the confidence from which a caption is sure
        self._problem = ""  # why the last caption of ours could not be written
        self._turn = threading.Lock()
        self._searches: dict[Path | None, FileSearch] = {}  # by the model's file
        self._stores: dict[Path | None, Reuse | None] = {}  # of features, by the model's file

    def paths(self) -> list[str]:
        """All pictures in the order of their names."""
        return list(self._files)

    def looked_up(self, path: str) -> Row | None:
        """The caption that counts. A server that was started again is told of changes before it has read all files."""
        self._read(path)
        if path in self._files:
            self.found.setdefault(path, {"path": path, "caption": "", "author": "captioner"})
        return self.row(path)

    def left(self) -> tuple[int, int]:
        """How many pictures are done, and how many there are."""
        return len(self.found), len(self._files)

    def advance(self, model: captioner.Captioner) -> bool:
        """Make previews, read the captions that are there, or caption a few pictures. False if all was done before."""
        with self._turn:
            end = time.monotonic() + _BIT
            shown, everything = self.shown()
            if self._preview(shown, end):
                return True
            if self.answer.waits and (search := self._searches.get(model.path)):
                search.wait(_BIT)
                return True
            if not (self._unread or self._waiting):
                after = self.choice.first + PAGE
                return self._preview(everything[after : after + PAGE], end)
            self._least = model.trust.min_confidence if model.trust else 0.0
            while self._unread and time.monotonic() < end:
                with self.lock:
                    self._read(next(iter(self._unread), ""))
            if time.monotonic() < end and not self._unread and self._waiting:
                self._caption(model)
            return True

    def ranked(self, model: captioner.Captioner, reader: Reader, text: str) -> list[str] | None:
        """All pictures that can be read, those that a text describes best first. None until they have been encoded."""
        if model.path not in self._searches:
            files = [file for file in self._files.values() if self._inside(file)]
            self._searches[model.path] = FileSearch(files, model)
        search = self._searches[model.path]
        self.encoded = search.done, search.total
        found = search.ranked(text)
        return None if found is None else [file[len(self._root.rstrip(os.sep)) + 1 :] for file in found]

    def save(self, path: str, text: str, seen: str) -> bool:
        """Put a person's text on disk."""
        return self._written(path, partial(self._place.correct, self._files[path], text, seen), text)

    def save_again(self, path: str, row: Row, seen: str) -> bool:
        """Put on disk what a change replaced."""
        file = self._files[path]
        if row.get("author") == "person":
            return self._written(path, partial(self._place.correct, file, row["caption"], seen))
        return self._written(path, partial(self._place.restore, {**row, "path": file}, seen))

    def _written(self, path: str, write: Callable[[], None], text: str | None = None) -> bool:
        """Whether something was put on disk. If not, the person sees why, and what the file holds now."""
        try:
            write()
        except (CaptionerError, OSError) as error:
            shown, there = self.row(path) or {}, None
            with suppress(CaptionerError, OSError):
                there = self._place.current(self._files[path])
            if there:
                self.found[path] = {"path": path, "caption": there.text, **there.facts()}
            other = there and there.text != shown.get("caption")
            return self.refuse(path, text, "" if other else self._named(error))
        return True

    def _fail(self, path: str, reason: str) -> None:
        self._problem = reason.replace(self._root + os.sep, "")

    def _named(self, error: Exception) -> str:
        """What went wrong, without the path of the folder."""
        reason = error.strerror or "" if isinstance(error, OSError) else str(error)
        return reason.replace(self._root + os.sep, "")

    def _inside(self, path: str) -> bool:
        return not Path(path).is_symlink() or os.path.realpath(path).startswith(self._root.rstrip(os.sep) + os.sep)

    def _read(self, path: str) -> None:
        if path not in self._unread:
            return
        del self._unread[path]
        try:
            there = self._place.current(self._files[path])
        except (CaptionerError, OSError) as error:
            self.found[path] = {"path": path, "error": self._named(error)}
            return
        if there is None:
            self._waiting.append(path)
            return
        self.found[path] = row = {"path": path, "caption": there.text, **there.facts()}
        if row.get("confidence", 1.0) < self._least:
            row["unsure"] = NOT_SURE

    def _caption(self, model: captioner.Captioner) -> None:
        """Caption the next few pictures and write the captions, unless a file has got one meanwhile."""
        part = self._waiting[:PART]
        if model.path not in self._stores:
            self._stores[model.path] = store_of(model, True, None, lambda line: None)
        with TURN:
            named = [(self._files[path], self._source(path)) for path in part]
            rows = list(map(row_of, model.caption_together(named, store=self._stores[model.path])))
        if isinstance(self._place, XmpFiles):
            self._place.language = language_of(model.path)
        for path, row in zip(part, rows, strict=True):
            if "error" in row:
                row["error"] = self._named(ImageError(row["error"])).removeprefix(f"{path}: ")
            with self.lock:
                self._keep({**row, "path": path})
        del self._waiting[: len(part)]

    def _keep(self, row: Row) -> None:
        path, self._problem = row["path"], ""
        if "error" not in row:
            try:
                rows = iter([{**row, "path": self._files[path]}])
                self._place.write(Digests().added_to(rows) if self._place.digests else rows)
            except (CaptionerError, OSError) as error:
                self._problem = self._named(error)
            row = {"path": path, **{name: row[name] for name in _KEPT if name in row}, "author": "captioner"}
        if self._problem:
            self.refused[path] = (None, self._problem)
        self.found[path] = row

    def _source(self, path: str) -> str | ImageError:
        """The file of a picture, or the error for one that has become a link that leads out of the folder."""
        file = self._files[path]
        return file if self._inside(file) else ImageError(f"{path}: is a link that leads out of the folder")

    def _preview(self, paths: list[str], end: float) -> bool:
        """Make previews that are missing, as many as there is time for. False if none was missing."""
        missing = [path for path in paths if path not in self.previews]
        for path in missing:
            self.previews[path] = ""
            if isinstance(source := self._source(path), str):
                self.previews[path] = thumbnail(source, SIDE) or ""
            if time.monotonic() > end:
                break
        for path in list(self.previews)[:-_PREVIEWS]:
            del self.previews[path]
        return bool(missing)
