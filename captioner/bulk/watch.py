"""Caption what comes into folders, for ever: `watch_folders`.

Each look lists the folders and compares sizes and times with those of the last look. Events of the file system only
say when to look, so none that is lost matters.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.bulk.formats import FORMAT_OF_SUFFIX
from captioner.bulk.moves import Stamp, stamp_of
from captioner.bulk.progress import Progress, Summary
from captioner.bulk.run import caption_files, loaded
from captioner.bulk.wanted import LIBRARIES, check_metadata
from captioner.errors import DataError, InputError, OptionError, OutputError, one_line
from captioner.files import AnyPath, cache_folder, listed
from captioner.options import WATCH_FORMATS
from captioner.pictures.find import pictures_in

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.captioner import Captioner

MOST = 256  # pictures a go, so that their captions appear soon
_POLL, _RESCAN, _RETRY = 5.0, 60.0, 60.0  # seconds between looks without and with events, and after an error


def watch_folders(
    folders: AnyPath | Iterable[AnyPath],
    output: AnyPath | None = None,
    *,
    format: str | None = None,
    model: Captioner | Callable[[], Captioner] | None = None,
    recursive: bool = False,
    settle: float = 2.0,
    poll: float | None = None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Summary:
    """Caption the pictures that folders hold and those that come, until `stop` is set; what `captioner watch` does.

        captioner.watch_folders("photos", progress=Progress())

    `format` is xmp, sidecar or embed, or, with the file `output`, text, csv or jsonl. `model`, `recursive` and all
    other `options` are those of `caption_files`. A picture gets its caption once its size and its time have not changed
    for `settle` seconds. If it changes later, a caption of ours in XMP is renewed; a person's stays, and so does one in
    a text file or in `output`. Folders that are not there are waited for.
    With the extra [watch], the system says when something changed. Without it, the folders are looked through every
    few seconds; with `poll`, every so many seconds. `progress` says what was captioned and what failed.
    Raises InputError if none of the folders exists, OptionError, CheckpointError and DeviceError. Other errors, such as
    a full disk, are said once, and tried again after a minute.
    """
    paths, stop = listed(folders), stop or threading.Event()
    progress = progress or Progress(quiet=True, say=lambda line: None)
    if not any(map(os.path.isdir, paths)):
        raise InputError(f"{one_line(paths[0]) if paths else 'nothing'}: no such folder to watch")
    if settle < 0 or (poll is not None and poll <= 0):
        raise OptionError("settle (--settle) must not be negative, and poll (--poll) must be more than 0")
    given = {**options, "output": output, "format": _format(format, output)}
    given["model"] = cache(partial(loaded, model))  # when the first picture comes
    check_metadata(given["format"], options.get("metadata"))
    watched = [_Folder(path, recursive, settle, given, progress) for path in paths]
    waiter = _Waiter(poll is None and find_spec("watchfiles") is not None, poll or _POLL, recursive, stop)
    progress.note(f"watching {', '.join(map(one_line, paths))}")
    while not stop.is_set():
        waiter.begin([folder.path for folder in watched if folder.there()])
        busy = [folder.look() for folder in watched if not stop.is_set()]
        if not any(busy):
            waiter.wait(min(folder.seconds() for folder in watched))
    captioned, failed = (sum(getattr(folder, name) for folder in watched) for name in ("captioned", "failed"))
    progress.note(f"stopped: {captioned:,} captioned, {failed:,} failed")
    return Summary(captioned, failed)


class _Folder:
    """A folder, and what was seen in it."""

    def __init__(self, path: str, recursive: bool, settle: float, given: dict[str, Any], progress: Progress) -> None:
        self.path, self._recursive, self._settle = path, recursive, settle
        self._given, self._progress = given, progress
        name = hashlib.sha256(repr((os.path.abspath(path), given["output"], given["format"])).encode()).hexdigest()
        self._journal = cache_folder() / "watch" / f"{name[:16]}.journal"
        self.captioned = self.failed = 0
        self._seen: dict[str, Stamp] = {}  # as each picture was when it was last dealt with
        self._changing: dict[str, tuple[Stamp, float]] = {}  # others, and since when they have been so
        self._said = ""
        self._again = 0.0  # when to try again after an error
        self._gone = False

    def there(self) -> bool:
        """Whether the folder exists. Says so where that has changed."""
        there = os.path.isdir(self.path)
        if there == self._gone:
            self._gone = not there
            self._say(f"{self.path}: {'is there again' if there else 'is not there: waiting for it'}")
        return there

    def seconds(self) -> float:
        """How long to wait until the next look, if nothing is heard of."""
        now = time.monotonic()
        if self._gone:
            return _POLL
        since = min((since for _, since in self._changing.values()), default=now + _RESCAN - self._settle)
        return max(0.1, since + self._settle - now, self._again - now)

    def look(self) -> bool:
        """Look through the folder, and caption a batch of what is ready. Returns whether more is."""
        if not self.there():
            return False
        paths = pictures_in(self.path, self._recursive, failed=self._complain)
        found = {path: stamp for path in paths if (stamp := stamp_of(path))}  # without those removed meanwhile
        now = time.monotonic()
        self._seen = {path: stamp for path, stamp in self._seen.items() if path in found}
        before, self._changing = self._changing, {}
        for path, stamp in found.items():
            if self._seen.get(path) != stamp:
                was, since = before.get(path, (stamp, now))
                self._changing[path] = stamp, since if was == stamp else now
        ready = [path for path, (_, since) in self._changing.items() if now - since >= self._settle]
        new = [path for path in ready if path not in self._seen]
        batch = (new or ready)[:MOST]
        return bool(batch) and now >= self._again and self._caption(batch, not new) and len(batch) < len(ready)

    def _caption(self, batch: list[str], renew: bool) -> bool:
        """Caption pictures, and remember how they are then. Returns whether that went well."""
        lines: list[str] = []
        again = renew and self._given["format"] in LIBRARIES
        given = {**self._given, "journal": self._journal, "overwrite": again, "moved_from": self.path}
        try:
            self._journal.parent.mkdir(parents=True, exist_ok=True)
            told = Progress(quiet=True, say=lines.append)
            done = caption_files(batch, recursive=self._recursive, resume=True, **given, progress=told)
        except (InputError, DataError, OutputError, OSError) as error:
            if str(error).startswith(str(self._journal)):  # with other settings, which may be
                self._journal.unlink(missing_ok=True)
                return True
            self._again = time.monotonic() + _RETRY
            self._complain(error)
            return False
        if not os.path.isdir(self.path):
            return False
        self._said = ""
        for line in lines:
            self._progress.say(line)
        for path in batch:
            was, _ = self._changing.pop(path)
            # Of a picture that changed meanwhile, the caption is not that of what is there now.
            if stamp := stamp_of(path) if self._given["format"] == "embed" else was:
                self._seen[path] = stamp
        self.captioned, self.failed = self.captioned + done.captioned, self.failed + done.failed
        if done.captioned or done.failed:
            self._progress.note(f"{self.path}: {done.captioned:,} captioned, {done.failed:,} failed")
        return True

    def _complain(self, error: Exception) -> None:
        """Say an error, unless it is the one that was said last."""
        reason = str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = f"{error.filename or self.path}: {error.strerror}"
        if reason != self._said:
            self._said = reason
            self._say(reason)

    def _say(self, text: str) -> None:
        self._progress.say(f"captioner: {one_line(text)}")


class _Waiter:
    """Waits until the system tells of a change, or for some seconds."""

    def __init__(self, events: bool, poll: float, recursive: bool, stop: threading.Event) -> None:
        self._events, self._poll, self._recursive, self._stop = events, poll, recursive, stop
        self._watched: object = None
        self._changes: Iterator[Any] | None = None

    def begin(self, folders: list[str]) -> None:
        """Hear of changes in these folders from now on."""
        if not self._events:
            return
        try:
            watched = [(os.stat(folder).st_dev, os.stat(folder).st_ino) for folder in folders]  # others after a remount
            if watched != self._watched:
                from watchfiles import watch

                wake = partial(watch, watch_filter=None, rust_timeout=500, yield_on_timeout=True)
                self._changes = wake(*folders, recursive=self._recursive, stop_event=self._stop) if folders else None
                self._watched = watched
                next(self._changes or iter(()), None)  # which begins it
        except (OSError, RuntimeError):  # such as more folders than the system watches
            self._watched = self._changes = None

    def wait(self, seconds: float) -> None:
        """Return after a change, after so many seconds, or when `stop` is set."""
        if not self._changes:
            self._stop.wait(min(seconds, self._poll))
            return
        end = time.monotonic() + seconds
        with suppress(OSError, RuntimeError):
            for changed in self._changes:
                if changed or time.monotonic() >= end:
                    return
        self._watched = self._changes = None


def _format(format: str | None, output: AnyPath | None) -> str:
    by_name = "xmp" if output is None else FORMAT_OF_SUFFIX.get(Path(output).suffix.lower(), "text")
    places, files = WATCH_FORMATS[:3], WATCH_FORMATS[3:]
    if (chosen := format or by_name) not in (places if output is None else files):
        remedy = f"give {' or '.join(places)}, or an output (--output) in {', '.join(files)}"
        raise OptionError(f"{chosen} cannot grow as pictures come: {remedy}")
    return chosen
