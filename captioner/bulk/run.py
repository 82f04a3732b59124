"""Caption pictures into a file, into sidecar files or onto a stream: `caption_files`.

Captions for files go into a journal first, and the output is rendered from the journal when all pictures are done. A
run that was interrupted can therefore be resumed, and then ends with the same bytes as one that was not.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, compress, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from uuid import uuid4
from weakref import WeakKeyDictionary

from captioner.bulk.journal import Journal
from captioner.bulk.library import XmpFiles
from captioner.bulk.moves import Digests, follow
from captioner.bulk.on_disk import OnDisk, distinct
from captioner.bulk.outputs import Output
from captioner.bulk.progress import Progress, Summary
from captioner.bulk.reuse import store_of
from captioner.bulk.wanted import LIBRARIES, Wanted, chosen
from captioner.errors import InputError, OutputError, counted, one_line, to_install
from captioner.files import AnyPath, listed
from captioner.inference.parallel import in_batches
from captioner.network.header import language_of
from captioner.options import DecodeOptions, MetadataOptions
from captioner.pictures.find import STDIN, Stdin, each_picture, folders_in, in_subfolders, read_stdin
from captioner.pictures.pairs import one_of_each

if TYPE_CHECKING:  # they import torch, for which what is wrong or done already need not wait
    from captioner.inference.captioner import Captioner
    from captioner.inference.results import Row

_IN_MEMORY: WeakKeyDictionary[Captioner, str] = WeakKeyDictionary()  # what tells apart models that have no file


def caption_files(
    paths: AnyPath | Iterable[AnyPath],
    output: AnyPath | TextIO | None = None,
    *,
    format: str | None = None,
    options: DecodeOptions | None = None,
    prompt: str = "",
    model: Captioner | Callable[[], Captioner] | None = None,
    recursive: bool = False,
    stdin: Stdin = (),
    batch_size: int = 32,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    extension: str = "",
    prefix: str = "",
    suffix: str = "",
    metadata: MetadataOptions | None = None,
    coco_images: AnyPath | None = None,
    journal: AnyPath | None = None,
    moved_from: AnyPath | Iterable[AnyPath] = (),
    index: AnyPath | bool = True,
    progress: Progress | None = None,
) -> Summary:
    """Write a caption for each picture; what `captioner caption` does: `caption_files("photos", "captions.csv")`.

    `paths` are files, folders, patterns, or "-" for what `stdin` holds: a list of paths, or the bytes of one picture.
    `output` is a file's path or an open text file; None means stdout. `format` is text, jsonl, csv, coco, html,
    sidecar, xmp or embed; by default the suffix of `output` decides. The last three take no output. sidecar writes
    photo.txt beside photo.jpg, or another `extension`, with `prefix` and `suffix` around each caption; xmp and embed
    see `metadata`. Image ids for coco come from the file names, or from `coco_images`, a JSON file in COCO's layout.
    Captions that exist stay; text, jsonl and csv files get rows for the other pictures at their end. Those in jsonl,
    csv and XMP go with pictures that were moved, also from the folders `moved_from`. `overwrite` replaces captions, in
    XMP only those that no person changed. `dry_run` only says what would get captions. `model` is a Captioner, or a
    function that loads one, called once all else was checked. `resume` goes on with the journal that an interrupted run
    left: `journal`, OUTPUT.journal, or .captioner.journal in the folder of the pictures. Pictures that are in the index
    of `open_index` are not encoded again, and others come into it; `index` is the file of another one, or False for
    none. `progress` reports how the run is going; without it nothing is said. A picture that cannot be read, or whose
    caption cannot be written, counts as failed and does not stop the others. Raises OptionError, InputError,
    OutputError, DataError (a picture without an image id), CheckpointError and DeviceError (from loading), and OSError.
    """
    options, progress = options or DecodeOptions(), progress or Progress(quiet=True, say=lambda line: None)
    place, format = chosen(output, format, progress)
    sidecar = {"extension": extension, "prefix": prefix, "suffix": suffix}
    wanted = Wanted(format, place, options, metadata, overwrite, sidecar, coco_images)
    wanted.check(output, batch_size, resume)
    inline, found = _found(arguments := listed(paths), format, recursive, stdin, progress)
    target = wanted.target(found, inline, progress)
    kept = Journal(Path(journal or target.journal), resume, found) if target.journal else None
    run = _Run(target, kept, inline, Digests(inline), options, prompt, batch_size, model, index, progress)
    total = len(found)
    summary = run.keep_waiting(found, _around(arguments + listed(moved_from), recursive), dry_run)
    if dry_run:
        sys.stdout.writelines(f"{target.place(path)}\n" for path in found)
        progress.note(f"{len(found):,} of {counted(total, 'picture')} would get captions")
    elif found:
        return run.caption(found)
    elif kept and resume:
        kept.path.unlink(missing_ok=True)
    return summary


@dataclass
class _Run:
    """What a run needs to caption pictures and to put the captions where they go."""

    target: Output
    journal: Journal | None
    inline: dict[str, bytes]  # the content of the picture on stdin by its path
    digests: Digests
    options: DecodeOptions
    prompt: str
    batch_size: int
    model: Captioner | Callable[[], Captioner] | None
    index: AnyPath | bool
    progress: Progress
    kept: int = 0  # pictures with captions that stay

    def keep_waiting(self, paths: OnDisk, folders: Iterable[tuple[str, list[str]]], dry_run: bool) -> Summary:
        """Take away the pictures that get no captions: they have some that stay, or are named as failed.

        A picture with a caption in the journal is looked at when that is written, and now only if nothing else is left
        to do. Captions of pictures that were moved may be in `folders`. Raises InputError, OutputError and OSError.
        """
        total = len(paths)
        finished = next(paths.unset(), None) is None
        asked = self.target.perhaps(paths if dry_run or finished else paths.unset())
        paths.remove(filter(self._gets_none, asked))
        if paths:
            check_waiting(paths, self.inline, self.target)
            paths.remove(follow(self.target, paths, self.digests, folders, dry_run, self.progress))
            self._name_gone()
        return self.progress.keep(self.kept, total)

    def _gets_none(self, path: str) -> bool:
        """Whether a picture gets no caption: it has one that stays, or it is named as failed."""
        try:
            if not self.target.holds(path):
                return False
            self.kept += 1
        except OutputError as error:
            self.progress.fail(str(error))
        return True

    def _name_gone(self) -> None:
        if not self.progress.quiet and (gone := self.target.gone()):
            number = counted(len(gone), "picture")
            which = f"{number} with a caption in {self.target.name} {'is' if len(gone) == 1 else 'are'} gone"
            remedy = "to keep the captions of pictures that were moved, first correct their paths in that file"
            self.progress.say(f"captioner: note: {which}, such as {one_line(gone[0])}: {remedy}")

    def caption(self, paths: OnDisk) -> Summary:
        """Caption these pictures, and write the captions. Raises what `caption_files` raises."""
        captioner = loaded(self.model)
        if isinstance(self.target, XmpFiles):
            self.target.language = language_of(captioner.path)
        if self.journal:
            return self._through(self.journal, captioner, paths)
        rows = self.progress.watch(self._rows(captioner, paths))
        self.progress.begin(len(paths))
        self.target.write(row for row in rows if "error" not in row)
        return self.progress.finish()

    def _rows(self, captioner: Captioner, paths: Iterable[str]) -> Iterator[Row]:
        """Give pictures to the model, and get a row for each. Raises OptionError for a wrong prompt at once."""
        from captioner.inference.results import row_of

        pictures = ((path, self.inline.get(path, path)) for path in paths)
        store = store_of(captioner, self.index, self.digests if self.target.digests else None, self.progress.say)
        captions = captioner.caption_named(pictures, self.options, self.batch_size, prompt=self.prompt, store=store)
        rows = map(row_of, captions)
        return self.digests.added_to(rows) if self.target.digests else rows

    def _through(self, journal: Journal, captioner: Captioner, paths: OnDisk) -> Summary:
        """Caption the pictures that the journal lacks, batch by batch, then write all of them from the journal.

        Batches are cut by position, and a batch that lacks anything is captioned again as a whole. No caption then
        depends on where an earlier run stopped, as it could through the rounding that comes with another batch size.
        """
        missing = journal.lacking(self.batch_size)
        batches = compress(in_batches(paths, self.batch_size), missing)
        # Before the journal is made: a wrong prompt leaves nothing.
        rows = self._rows(captioner, chain.from_iterable(batches))
        journal.begin(self._settings(captioner))
        try:
            end = journal.end
            self.progress.earlier = lambda path: paths[path] < end
            self.progress.begin(len(paths), len(paths) - sum(missing))
            rows = self.progress.watch(rows)
            for number in filter(None, missing):
                journal.append(islice(rows, number))
            self.target.write(journal.rows())
        except KeyboardInterrupt:
            self.progress.say(f"captioner: add resume (--resume) to go on from {journal.path}")
            raise
        finally:
            journal.close()
        summary = self.progress.finish()
        if not summary.failed or not self.target.whole:
            journal.path.unlink()
        if summary.failed:
            how = " with resume and overwrite (--resume --overwrite)" if self.target.whole else ""
            self.progress.note(f"the same command{how} tries the failed ones again")
        return summary

    def _settings(self, captioner: Captioner) -> dict[str, Any]:
        """What the captions depend on."""
        in_memory = f"in memory only, {uuid4()}"
        checkpoint = captioner.digest() if captioner.path else _IN_MEMORY.setdefault(captioner, in_memory)
        by = {"journal": 2, "checkpoint": checkpoint, "precision": captioner.precision, "engine": captioner.engine}
        asked = {**asdict(self.options), "prompt": self.prompt, "batch_size": self.batch_size}
        return {**by, **asked, **{path: self.digests.of(path) for path in self.inline}}


def _around(arguments: list[str], recursive: bool) -> Iterator[tuple[str, list[str]]]:
    """The folders in which captions of pictures that were moved may be: those named, and those of the files named.

    One that cannot be listed stops nothing: it is reported where pictures are looked for in it.
    """
    paths = map(Path, filter(STDIN.__ne__, arguments))
    folders = dict.fromkeys(str(path if path.is_dir() else path.parent) for path in paths)
    return folders_in(folders, recursive, lambda error: None)


def loaded(model: Captioner | Callable[[], Captioner] | None) -> Captioner:
    """The model that was given or that a function loads, or else the shipped one."""
    from captioner.inference.captioner import load

    model = model or load
    return model() if callable(model) else model


def _found(
    arguments: list[str], format: str, recursive: bool, stdin: Stdin, progress: Progress
) -> tuple[dict[str, bytes], OnDisk]:
    """The bytes of the picture on stdin by its path, if there is one, and the paths of all pictures."""
    note_subfolders(arguments, recursive, progress)
    content = read_stdin(stdin) if STDIN in arguments else []
    inline, passed_over = {STDIN: content} if isinstance(content, bytes) else {}, Counter[str]()
    lines = [STDIN] if isinstance(content, bytes) else content
    found = distinct(each_picture(arguments, recursive, lines, passed_over))
    for kind, number in passed_over.items():
        remedy = f": to read raw files, {to_install('raw')}" if kind == "raw file" else ""
        progress.note(f"note: {counted(number, kind)} {'is' if number == 1 else 'are'} passed over{remedy}")
    paths = one_of_each(found) if format in LIBRARIES else found
    return inline, found if paths is found else distinct(paths)


def note_subfolders(arguments: list[str], recursive: bool, progress: Progress) -> None:
    """Say which folders have more pictures below them."""
    for folder in () if recursive or progress.quiet else filter(os.path.isdir, arguments):
        if below := in_subfolders(folder):
            more = counted(below, "more picture")
            progress.note(f"note: {more} in the subfolders of {one_line(folder)}: add recursive (-r)")


def check_waiting(paths: Collection[str], inline: dict[str, bytes], target: Output) -> None:
    """Raise InputError if none of the pictures exists, and OutputError if their captions could not be written."""
    if not any(path in inline or os.path.lexists(path) for path in paths):
        others = f", nor are the {len(paths) - 1:,} others there" if len(paths) > 1 else ""
        raise InputError(f"{one_line(next(iter(paths)))}: no such file or folder{others}")
    target.check(paths)
