"""Caption pictures into a file, into sidecar files or onto a stream: `caption_files`.

Captions for files go into a journal first, and the output is rendered from the journal when all pictures are done. A
run that was interrupted can therefore be resumed, and then ends with the same bytes as one that was not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO, TypeAlias
from uuid import uuid4
from weakref import WeakKeyDictionary

from captioner.bulk.formats import Writer, in_ascii, sidecar_paths, sidecar_text, writer
from captioner.bulk.journal import Journal
from captioner.bulk.progress import Progress, Summary
from captioner.data.names import image_id, read_image_ids
from captioner.errors import DataError, OptionError, OutputError
from captioner.files import replacing, sha256_of
from captioner.inference.captioner import Captioner, load
from captioner.inference.openvino_engine import encoder_file
from captioner.inference.parallel import in_batches
from captioner.inference.results import FileResult, Row, row_of
from captioner.options import FILE_FORMATS, DecodeOptions
from captioner.pictures.find import find_pictures

AnyPath: TypeAlias = "str | os.PathLike[str]"
_Caption: TypeAlias = Callable[[Iterable[str]], Iterator[FileResult]]
_Write: TypeAlias = Callable[[Iterable[Row]], None]
_IN_MEMORY: WeakKeyDictionary[Captioner, str] = WeakKeyDictionary()  # what tells apart models that have no file


def caption_files(
    paths: AnyPath | Iterable[AnyPath],
    output: AnyPath | TextIO | None = None,
    *,
    format: str = "text",
    options: DecodeOptions | None = None,
    prompt: str = "",
    model: Captioner | Callable[[], Captioner] = load,
    recursive: bool = False,
    stdin: Iterable[str] = (),
    batch_size: int = 32,
    resume: bool = False,
    overwrite: bool = False,
    prefix: str = "",
    suffix: str = "",
    coco_images: AnyPath | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Write a caption for each picture; what `captioner caption` does.

        captioner.caption_files("photos", "captions.csv", format="csv", progress=Progress())

    `paths` are files, folders, patterns, or "-" for the lines of `stdin`, as in `pictures.find.find_pictures`.
    `output` is a file's path or an open text file; None means stdout. Sidecar files (photo.txt beside photo.jpg) take
    none; `prefix` and `suffix` go around each of their captions, and `overwrite` allows to replace those that exist.
    `format` is text, jsonl, csv, coco, html or sidecar. Image ids for coco come from the file names, or from
    `coco_images`, a JSON file in COCO's layout.
    `model` is a Captioner, or a function that loads one. The function is called only after all else was checked.
    `resume` goes on with the journal that an interrupted run left: OUTPUT.journal, or .captioner.journal in the folder
    of the pictures for sidecars. After a KeyboardInterrupt, and when pictures failed, it stays there for that. A model
    that was not loaded from a file goes on with its own runs only.
    `progress` reports how the run is going. Without it nothing is printed.
    A picture that cannot be read is counted as failed and does not stop the others. Raises OptionError, InputError,
    OutputError, DataError (a picture without an image id), CheckpointError and DeviceError (from loading), and OSError.
    """
    options = options or DecodeOptions()
    progress = progress or Progress(quiet=True, say=lambda line: None)
    place = Path(output) if isinstance(output, str | os.PathLike) else output or sys.stdout
    to_stream = not isinstance(place, Path) and format != "sidecar"
    of_sidecars = {"prefix": prefix, "suffix": suffix, "overwrite": overwrite}
    _check_usage(format, output, batch_size, resume and to_stream, of_sidecars, coco_images)
    found = find_pictures(listed(paths), recursive, stdin)
    sidecars = sidecar_paths(found) if format == "sidecar" else {}
    write: _Write = partial(_write_sidecars, sidecars, prefix, suffix)
    if not sidecars:
        write = partial(_write_text, place, format, _renderer(format, options, found, coco_images))
    journal = None if to_stream else Journal(_journal_path(place, found), resume)
    taken = [file for path, file in sidecars.items() if file.exists() and journal and not journal.captioned(path)]
    if taken and not overwrite:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise OutputError(f"{taken[0]}{more} would be replaced: add overwrite (--overwrite) if that is meant")
    captioner = model if isinstance(model, Captioner) else model()
    caption = partial(captioner.caption_files, options=options, batch_size=batch_size, prompt=prompt)
    if journal:
        settings = {**_facts(captioner), **asdict(options), "prompt": prompt, "batch_size": batch_size}
        return _through_journal(journal, settings, caption, found, write, progress)
    rows = progress.watch(map(row_of, caption(found)))
    progress.begin(len(found))
    write(row for row in rows if "error" not in row)
    return progress.finish()


def _facts(captioner: Captioner) -> dict[str, Any]:
    """What captions depend on besides options: the checkpoint, the precision and the engine."""
    file, engine = captioner.path, captioner.engine
    checkpoint = captioner.digest() if file else _IN_MEMORY.setdefault(captioner, f"in memory only, {uuid4()}")
    if file and engine != "torch":  # two exports of one checkpoint write different captions
        engine += " " + sha256_of(encoder_file(file).with_suffix(".bin"))
    return {"journal": 2, "checkpoint": checkpoint, "precision": captioner.precision, "engine": engine}


def _through_journal(
    journal: Journal, settings: dict[str, Any], caption: _Caption, paths: list[str], write: _Write, progress: Progress
) -> Summary:
    """Caption the pictures that the journal lacks, batch by batch, then write all of them from the journal.

    Batches are cut by position, and a batch that lacks anything is captioned again as a whole. No caption then depends
    on where an earlier run stopped, as it could through the rounding that comes with another batch size.
    """
    batches = list(in_batches(paths, settings["batch_size"]))
    missing = [batch for batch in batches if not all(map(journal.captioned, batch))]
    results = caption(chain.from_iterable(missing))  # before the journal is made: a wrong prompt leaves nothing
    journal.begin(settings)
    try:
        progress.begin(len(paths), len(paths) - sum(map(len, missing)))
        rows = progress.watch(map(row_of, results))
        for batch in missing:
            journal.append(islice(rows, len(batch)))
        write(journal.rows(paths))
    except KeyboardInterrupt:
        progress.say(f"captioner: add resume (--resume) to go on from {journal.path}")
        raise
    finally:
        journal.close()
    summary = progress.finish()
    if not summary.failed:
        journal.path.unlink()
    return summary


def listed(paths: AnyPath | Iterable[AnyPath]) -> list[str]:
    """One path or several, as the texts that stand for them in results."""
    return [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def _check_usage(
    format: str, output: Any, batch_size: int, resume_stream: bool, of_sidecars: dict[str, object], coco_images: object
) -> None:
    """Raise OptionError for options that are impossible or contradict each other."""
    stray = next((name for name, value in of_sidecars.items() if value and format != "sidecar"), None)
    is_path = isinstance(output, str | os.PathLike)
    for wrong, message in (
        (format not in FILE_FORMATS, f"format must be one of {', '.join(FILE_FORMATS)}, not {format!r}"),
        (batch_size < 1, f"batch_size must be at least 1, not {batch_size}"),
        (format == "sidecar" and output, "sidecar files go beside their pictures: leave out output (--output)"),
        (resume_stream, "resume (--resume) needs output (--output FILE): a stream cannot be resumed"),
        (stray, f"{stray} (--{stray}) goes with the format sidecar only"),
        (coco_images and format != "coco", "coco_images (--coco-images) goes with the format coco only"),
        (is_path and "://" in str(output), f"{output}: is an address: only `captioner cluster` writes to addresses"),
        (is_path and Path(output).is_dir(), f"{output}: is a folder: give the name of a file"),
    ):
        if wrong:
            raise OptionError(message)


def _renderer(format: str, options: DecodeOptions, paths: list[str], coco_images: AnyPath | None) -> Writer:
    """The function from rows to text. Raises DataError when a picture has no image id, or two have the same."""
    ids = read_image_ids(Path(coco_images)) if coco_images else None
    owner: dict[int, str] = {}
    for path in paths if format == "coco" else ():
        if (other := owner.setdefault(image_id(path, ids), path)) != path:
            raise DataError(f"{path}: has the same image id as {other}: give coco_images (--coco-images FILE)")
    return writer(format, options.num_captions, ids)


def _write_text(place: Path | TextIO, format: str, render: Writer, rows: Iterable[Row]) -> None:
    pieces = render(rows)
    if isinstance(place, Path):
        pieces = chain(["\ufeff"] if format == "csv" else [], pieces)  # the mark by which Excel knows UTF-8
    elif (getattr(place, "encoding", None) or "utf-8").lower().replace("_", "-") != "utf-8":
        pieces = in_ascii(format, pieces)
    with replacing(place) if isinstance(place, Path) else nullcontext(place) as text:
        text.writelines(pieces)


def _write_sidecars(sidecars: dict[str, Path], prefix: str, suffix: str, rows: Iterable[Row]) -> None:
    for row in rows:
        with replacing(sidecars[row["path"]]) as text:
            text.write(sidecar_text(row, prefix, suffix))


def _journal_path(place: Path | TextIO, paths: list[str]) -> Path:
    """Beside the output, or for sidecars in the deepest folder that holds all pictures."""
    if isinstance(place, Path):
        return place.with_name(place.name + ".journal")
    return Path(os.path.commonpath([Path(path).absolute().parent for path in paths])) / ".captioner.journal"
