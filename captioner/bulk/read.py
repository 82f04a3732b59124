"""The captions that files hold, in the formats that captions are written in: `read_files`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from captioner.bulk.formats import writer
from captioner.bulk.progress import Progress, Summary
from captioner.bulk.run import note_subfolders
from captioner.bulk.wanted import chosen, in_one
from captioner.data.readers.folders import beside, texts_in
from captioner.errors import DataError, ImageError, OptionError, counted, reason_of, to_install
from captioner.files import AnyPath, listed
from captioner.metadata import embedded
from captioner.metadata.sidecars import Sidecars
from captioner.options import PLACES, READ_FORMATS
from captioner.pictures.find import STDIN, Stdin, find_pictures, read_stdin

if TYPE_CHECKING:  # it imports torch
    from captioner.inference.results import Row


def read_files(
    paths: AnyPath | Iterable[AnyPath],
    output: AnyPath | TextIO | None = None,
    *,
    format: str | None = None,
    places: Iterable[str] = PLACES,
    recursive: bool = False,
    stdin: Stdin = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Write the caption that each picture has already; what `captioner read` does.

        captioner.read_files("photos", "captions.csv")

    `paths`, `output`, `overwrite` and `progress` are those of `caption_files`; `format` is text, jsonl or csv.
    `places` are where to look: "xmp" is an XMP sidecar file, "embedded" the picture itself, and "text" a .txt or
    .caption beside it. Of several captions, one that a person wrote or changed in XMP comes first, then that of a text
    file, of which nobody knows who wrote it, then ours. A person's empty caption is written, too: they want none.
    Pictures without a caption are left out. Those whose metadata are damaged are named and counted as failed.
    Raises OptionError, InputError, OutputError, DeviceError (to look inside pictures needs the extra [metadata], unless
    `places` are those by default) and OSError.
    """
    progress = progress or Progress(quiet=True, say=lambda line: None)
    place, format = chosen(output, format, progress)
    places = tuple(places)
    for wrong, known, name in ((format, READ_FORMATS, "format"), *((place, PLACES, "places") for place in places)):
        if wrong not in known:
            raise OptionError(f"{name} must be of {', '.join(known)}, not {wrong!r}")
    if "embedded" in places and not embedded.available():
        if places != PLACES:
            embedded.require()
        places = tuple(name for name in places if name != "embedded")
        progress.note(f"captions inside pictures are left out: to read them, {to_install('metadata')}")
    arguments = listed(paths)
    note_subfolders(arguments, recursive, progress)
    content = read_stdin(stdin) if STDIN in arguments else []
    if isinstance(content, bytes):
        raise OptionError("a picture on stdin has nothing beside it: give its path")
    found = find_pictures(arguments, recursive, content)
    rows = list(_rows(found, places, progress))
    several = max((1 + len(row.get("alternatives", ())) for row in rows), default=1)
    target = in_one(place, format, several, writer(format, several), overwrite)
    target.check(found)
    if old := sum(target.holds(row["path"]) for row in rows):
        progress.note(f"note: {place} keeps its rows of {counted(old, 'picture')}: overwrite (--overwrite) renews them")
    target.write(rows)
    progress.note(f"{len(rows):,} of {len(found):,} pictures hold captions")
    return progress.keep(0, len(found))


def _rows(paths: Iterable[str], places: tuple[str, ...], progress: Progress) -> Iterator[Row]:
    sidecars = Sidecars()
    for path in paths:
        try:
            if not Path(path).exists():
                raise ImageError(f"{path}: no such file")
            if row := caption_of(path, places, sidecars):
                yield row
        except (DataError, ImageError, OSError) as error:
            progress.fail(reason_of(error, path))


def caption_of(path: str, places: tuple[str, ...], sidecars: Sidecars) -> Row | None:
    """The caption that counts, with where it was found, as plain data."""
    found: list[tuple[int, Row]] = []
    for place in places:
        if place == "text":
            if files := beside(path):  # an empty one means that a person wants no caption
                first, *others = texts_in(files[0])
                row: Row = {"path": path, "caption": first, "found": place}
                more = {"alternatives": [{"caption": text} for text in others]} if others else {}
                found.append((1, {**row, **more}))
        elif held := sidecars.held(path) if place == "xmp" else embedded.read(path):
            row = {"path": path, "caption": held.text, "found": place, **held.facts()}
            found.append((2 * held.ours, row))
    return min(found, key=lambda item: item[0])[1] if found else None
