"""Caption pictures into a file, into sidecar files or onto a stream: `caption_files`.

Captions for files go into a journal first, and the output is rendered from the journal when all pictures are done. A
run that was interrupted can therefore be resumed, and then ends with the same bytes as one that was not.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias
from uuid import uuid4
from weakref import WeakKeyDictionary

from captioner.bulk.formats import FORMAT_OF_SUFFIX, NOT_WRITTEN, check_extension, format_of, writer
from captioner.bulk.journal import Journal
from captioner.bulk.library import Library, Pictures, XmpFiles
from captioner.bulk.moves import Digests, follow
from captioner.bulk.outputs import OneFile, Output, Place, Sidecars, Stream
from captioner.bulk.progress import Progress, Summary
from captioner.data.names import image_id, read_image_ids
from captioner.errors import DataError, InputError, OptionError, OutputError, counted, one_line, to_install
from captioner.files import sha256_of
from captioner.inference.parallel import in_batches
from captioner.network.header import language_of
from captioner.options import FILE_FORMATS, DecodeOptions, MetadataOptions, option_specs
from captioner.pictures.find import STDIN, Stdin, find_pictures, folders_in, in_subfolders, read_stdin
from captioner.pictures.load import thumbnail
from captioner.pictures.pairs import one_of_each

if TYPE_CHECKING:  # they import torch, for which what is wrong or done already need not wait
    from captioner.inference.captioner import Captioner
    from captioner.inference.results import Row

AnyPath: TypeAlias = "str | os.PathLike[str]"
_Caption: TypeAlias = "Callable[[Iterable[str]], Iterator[Row]]"
_LIBRARY: dict[str, type[Library]] = {"xmp": XmpFiles, "embed": Pictures}
_NO_PLACE = "a picture on stdin has no place for captions beside or inside it: choose another format"
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
    left: `journal`, OUTPUT.journal, or .captioner.journal in the folder of the pictures. `progress` reports how the run
    is going; without it nothing is said. A picture that cannot be read, or whose caption cannot be written, counts as
    failed and does not stop the others. Raises OptionError, InputError, OutputError, DataError (a picture without an
    image id), CheckpointError and DeviceError (from loading), and OSError.
    """
    options, progress = options or DecodeOptions(), progress or Progress(quiet=True, say=lambda line: None)
    place = Path(output) if isinstance(output, str | os.PathLike) else output or sys.stdout
    format = chosen_format(format, place, progress)
    check_metadata(format, metadata)
    sidecar = {"extension": extension, "prefix": prefix, "suffix": suffix}
    _check_usage(format, output, batch_size, {"resume": resume, "overwrite": overwrite}, sidecar, coco_images)
    inline, found = _found(paths, format, recursive, stdin, progress)
    target = _library(format, found, inline, options, metadata, overwrite, progress) or _target(
        place, format, found, inline, options, overwrite, sidecar, coco_images
    )
    kept = Journal(Path(journal or target.journal), resume) if target.journal else None
    digests, folders = Digests(inline), _around(listed(paths) + listed(moved_from), recursive)
    waiting, summary = _waiting(target, found, inline, digests, folders, place, dry_run, progress)
    if waiting and not dry_run:
        return _run(target, kept, waiting, inline, digests, model, options, prompt, batch_size, progress)
    if dry_run:
        _list(target, waiting, len(found), progress)
    elif kept and resume:
        kept.path.unlink(missing_ok=True)
    return summary


def _waiting(
    target: Output,
    paths: list[str],
    inline: dict[str, bytes],
    digests: Digests,
    folders: Iterable[tuple[str, list[str]]],
    place: Path | TextIO,
    dry_run: bool,
    progress: Progress,
) -> tuple[list[str], Summary]:
    """The pictures that get captions. Others have captions that stay, or are named as failed."""
    waiting, kept = [], 0
    for path in paths:
        try:
            holds = target.holds(path)
        except OutputError as error:
            progress.fail(str(error))
            continue
        kept += holds
        if not holds:
            waiting.append(path)
    if waiting:
        check_waiting(waiting, inline, target)
        waiting = follow(target, waiting, digests, folders, dry_run, progress)
        _name_gone(target, place, progress)
    return waiting, progress.keep(kept, len(paths))


def _list(target: Output, waiting: list[str], total: int, progress: Progress) -> None:
    sys.stdout.writelines(f"{target.place(path)}\n" for path in waiting)
    progress.note(f"{len(waiting):,} of {counted(total, 'picture')} would get captions")


def _run(
    target: Output,
    journal: Journal | None,
    paths: list[str],
    inline: dict[str, bytes],
    digests: Digests,
    model: Captioner | Callable[[], Captioner] | None,
    options: DecodeOptions,
    prompt: str,
    batch_size: int,
    progress: Progress,
) -> Summary:
    from captioner.inference.results import row_of

    model = model or default_model
    captioner = model() if callable(model) else model
    if isinstance(target, Library):
        target.language = language_of(captioner.path)

    def caption(paths: Iterable[str]) -> Iterator[Row]:
        pictures = ((path, inline.get(path, path)) for path in paths)
        rows = map(row_of, captioner.caption_named(pictures, options, batch_size, prompt=prompt))
        return digests.added_to(rows) if target.digests else rows

    if journal:
        content = {path: digests.of(path) for path in inline}
        settings = {**_facts(captioner), **asdict(options), "prompt": prompt, "batch_size": batch_size}
        return _through_journal(journal, {**settings, **content}, caption, paths, target, progress)
    rows = progress.watch(caption(paths))
    progress.begin(len(paths))
    target.write(row for row in rows if "error" not in row)
    return progress.finish()


def _around(arguments: list[str], recursive: bool) -> Iterator[tuple[str, list[str]]]:
    """The folders in which captions of pictures that were moved may be: those named, and those of the files named.

    One that cannot be listed stops nothing: it is reported where pictures are looked for in it.
    """
    paths = map(Path, filter(STDIN.__ne__, arguments))
    folders = dict.fromkeys(str(path if path.is_dir() else path.parent) for path in paths)
    return folders_in(folders, recursive, lambda error: None)


def default_model() -> Captioner:
    """The model where none is given."""
    from captioner.inference.captioner import load

    return load()


def _facts(captioner: Captioner) -> dict[str, Any]:
    """What captions depend on besides options: the checkpoint, the precision and the engine."""
    file, engine = captioner.path, captioner.engine
    checkpoint = captioner.digest() if file else _IN_MEMORY.setdefault(captioner, f"in memory only, {uuid4()}")
    if file and engine != "torch":
        from captioner.inference.openvino_engine import encoder_file

        # Two exports of one checkpoint write different captions.
        engine += " " + sha256_of(encoder_file(file).with_suffix(".bin"))
    return {"journal": 2, "checkpoint": checkpoint, "precision": captioner.precision, "engine": engine}


def _through_journal(
    journal: Journal,
    settings: dict[str, Any],
    caption: _Caption,
    paths: list[str],
    target: Output,
    progress: Progress,
) -> Summary:
    """Caption the pictures that the journal lacks, batch by batch, then write all of them from the journal.

    Batches are cut by position, and a batch that lacks anything is captioned again as a whole. No caption then depends
    on where an earlier run stopped, as it could through the rounding that comes with another batch size.
    """
    batches = list(in_batches(paths, settings["batch_size"]))
    missing = [batch for batch in batches if not all(map(journal.captioned, batch))]
    rows = caption(chain.from_iterable(missing))  # before the journal is made: a wrong prompt leaves nothing
    journal.begin(settings)
    try:
        progress.begin(len(paths), len(paths) - sum(map(len, missing)))
        rows = progress.watch(rows)
        for batch in missing:
            journal.append(islice(rows, len(batch)))
        target.write(journal.rows(paths))
    except KeyboardInterrupt:
        progress.say(f"captioner: add resume (--resume) to go on from {journal.path}")
        raise
    finally:
        journal.close()
    summary = progress.finish()
    if not summary.failed or not target.whole:
        journal.path.unlink()
    if summary.failed:
        how = " with resume and overwrite (--resume --overwrite)" if target.whole else ""
        progress.note(f"the same command{how} tries the failed ones again")
    return summary


def listed(paths: AnyPath | Iterable[AnyPath]) -> list[str]:
    """One path or several, as the texts that stand for them in results."""
    return [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def chosen_format(format: str | None, place: Path | TextIO, progress: Progress) -> str:
    """The format that was asked for, or that of the output's suffix. Raises OptionError for a suffix of no format."""
    if not isinstance(place, Path):
        return format or "text"
    if format is None or place.suffix.lower() in NOT_WRITTEN:
        return format_of(place)
    if FORMAT_OF_SUFFIX.get(place.suffix.lower(), format) != format:
        progress.note(f"note: {place} will hold {format}, as --format says, whatever its suffix says")
    return format


def _check_usage(
    format: str,
    output: Any,
    batch_size: int,
    of_files: dict[str, bool],
    of_sidecars: dict[str, str],
    coco_images: object,
) -> None:
    """Raise OptionError for options that are impossible or contradict each other."""
    stray = next((name for name, value in of_sidecars.items() if value and format != "sidecar"), None)
    no_output = format == "sidecar" or format in _LIBRARY
    is_path = isinstance(output, str | os.PathLike)
    unfit = next((name for name, on in of_files.items() if on and not is_path and not no_output), None)
    extension = of_sidecars["extension"]
    for wrong, message in (
        (format not in FILE_FORMATS, f"format must be one of {', '.join(FILE_FORMATS)}, not {format!r}"),
        (batch_size < 1, f"batch_size must be at least 1, not {batch_size}"),
        (no_output and output, f"{format} captions go beside or into their pictures: leave out output (--output)"),
        (unfit, f"{unfit} (--{unfit}) needs output (--output FILE): a stream cannot be read again"),
        (stray, f"{stray} (--{stray}) goes with the format sidecar only"),
        (coco_images and format != "coco", "coco_images (--coco-images) goes with the format coco only"),
        (is_path and "://" in str(output), f"{output}: is an address: only `captioner cluster` writes to addresses"),
        (is_path and Path(output).is_dir(), f"{output}: is a folder: give the name of a file"),
    ):
        if wrong:
            raise OptionError(message)
    check_extension(extension)


def check_metadata(format: str, options: MetadataOptions | None) -> None:
    """Raise OptionError for an option that this format does not use."""
    for spec in option_specs(MetadataOptions) if options else ():
        if getattr(options, spec.name) != spec.default and format not in spec.strategies:
            formats = " or ".join(spec.strategies)
            raise OptionError(f"{spec.name} ({spec.flag}) goes with the format {formats} only")


def _found(
    paths: AnyPath | Iterable[AnyPath], format: str, recursive: bool, stdin: Stdin, progress: Progress
) -> tuple[dict[str, bytes], list[str]]:
    """The bytes of the picture on stdin by its path, if there is one, and the paths of all pictures."""
    arguments = listed(paths)
    note_subfolders(arguments, recursive, progress)
    content = read_stdin(stdin) if STDIN in arguments else []
    inline, passed_over = {STDIN: content} if isinstance(content, bytes) else {}, Counter[str]()
    found = find_pictures(arguments, recursive, [STDIN] if isinstance(content, bytes) else content, passed_over)
    for kind, number in passed_over.items():
        remedy = f": to read raw files, {to_install('raw')}" if kind == "raw file" else ""
        progress.note(f"note: {counted(number, kind)} {'is' if number == 1 else 'are'} passed over{remedy}")
    return inline, one_of_each(found) if format in _LIBRARY else found


def note_subfolders(arguments: list[str], recursive: bool, progress: Progress) -> None:
    """Say which folders have more pictures below them."""
    for folder in () if recursive or progress.quiet else filter(os.path.isdir, arguments):
        if below := in_subfolders(folder):
            more = counted(below, "more picture")
            progress.note(f"note: {more} in the subfolders of {one_line(folder)}: add recursive (-r)")


def check_waiting(paths: list[str], inline: dict[str, bytes], target: Output) -> None:
    """Raise InputError if none of the pictures exists, and OutputError if their captions could not be written."""
    if not any(path in inline or os.path.lexists(path) for path in paths):
        others = f", nor are the {len(paths) - 1:,} others there" if len(paths) > 1 else ""
        raise InputError(f"{one_line(paths[0])}: no such file or folder{others}")
    target.check(paths)


def _name_gone(target: Output, place: Path | TextIO, progress: Progress) -> None:
    if not progress.quiet and (gone := target.gone()):
        which = f"{counted(len(gone), 'picture')} with a caption in {place} {'is' if len(gone) == 1 else 'are'} gone"
        remedy = "to keep the captions of pictures that were moved, first correct their paths in that file"
        progress.say(f"captioner: note: {which}, such as {one_line(gone[0])}: {remedy}")


def _target(
    place: Path | TextIO,
    format: str,
    paths: list[str],
    inline: dict[str, bytes],
    options: DecodeOptions,
    overwrite: bool,
    of_sidecars: dict[str, str],
    coco_images: AnyPath | None,
) -> Output:
    """Where the captions go. Raises OptionError, DataError and OutputError."""
    if format == "sidecar":
        if inline:
            raise OptionError(_NO_PLACE)
        return Sidecars(paths, overwrite=overwrite, **of_sidecars)
    ids = _image_ids(paths, coco_images) if format == "coco" else None
    render = writer(format, options.num_captions, ids, lambda path: thumbnail(inline.get(path, path)))
    if isinstance(place, Path):
        return OneFile(place, format, options.num_captions, render, overwrite)
    return Stream(place, format, render)


def _library(
    format: str,
    paths: list[str],
    inline: dict[str, bytes],
    options: DecodeOptions,
    metadata: MetadataOptions | None,
    overwrite: bool,
    progress: Progress,
) -> Library | None:
    """Where captions for photo libraries go; None for other formats. Raises OptionError and DeviceError."""
    if format not in _LIBRARY:
        return None
    if inline:
        raise OptionError(_NO_PLACE)
    fail = partial(progress.fail, captioned=True)
    library = _LIBRARY[format](paths, metadata or MetadataOptions(), overwrite, fail)
    if options.unsure == "skip":
        library.limits = f"confidence {options.min_confidence}, familiar {options.min_familiar}"
    return library


def place_of(format: str, paths: list[str], fail: Callable[[str], object]) -> Place:
    """A place of its own for the caption of each picture: format is xmp, embed or sidecar.

    `fail` takes what to say of a picture whose caption cannot be written. Raises DeviceError without the extra
    [metadata] for embed.
    """
    if format == "sidecar":
        return Sidecars(paths, "", "", "", overwrite=False)
    return _LIBRARY[format](paths, MetadataOptions(), False, fail)


def _image_ids(paths: list[str], coco_images: AnyPath | None) -> dict[str, int] | None:
    """Image ids by name, if there is a list. Raises DataError when a picture has no id, or two have the same."""
    ids = read_image_ids(Path(coco_images)) if coco_images else None
    owner: dict[int, str] = {}
    for path in paths:
        try:
            number = image_id(path, ids)
        except DataError as error:
            raise DataError(f"{error}; or write jsonl, which needs no ids") from error
        if (other := owner.setdefault(number, path)) != path:
            raise DataError(f"{path}: has the same image id as {other}: give coco_images (--coco-images FILE)")
    return ids
