"""What is wanted of the output of a run: whether the options go together, and which place the captions then have."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from captioner.bulk.formats import FORMAT_OF_SUFFIX, NOT_WRITTEN, Writer, check_extension, format_of, writer
from captioner.bulk.gallery import Gallery
from captioner.bulk.library import Pictures, XmpFiles
from captioner.bulk.on_disk import OnDisk
from captioner.bulk.outputs import OneFile, Output, Place, Sidecars, Stream
from captioner.bulk.progress import Progress
from captioner.data.names import image_id, read_image_ids
from captioner.errors import DataError, OptionError
from captioner.files import AnyPath
from captioner.options import FILE_FORMATS, DecodeOptions, MetadataOptions, option_specs
from captioner.pictures.load import thumbnail

LIBRARIES: dict[str, type[XmpFiles]] = {"xmp": XmpFiles, "embed": Pictures}


@dataclass(frozen=True)
class Wanted:
    """What was asked of the output of a run."""

    format: str
    place: Path | TextIO  # for formats that do not go beside or into pictures
    options: DecodeOptions
    metadata: MetadataOptions | None = None
    overwrite: bool = False
    sidecar: dict[str, str] | None = None  # its extension, prefix and suffix
    coco_images: AnyPath | None = None

    def check(self, output: AnyPath | TextIO | None, batch_size: int, resume: bool) -> None:
        """Raise OptionError for options that are impossible or contradict each other. `output` is as it was given."""
        check_metadata(self.format, self.metadata)
        format, sidecar = self.format, self.sidecar or {}
        stray = next((name for name, value in sidecar.items() if value and format != "sidecar"), None)
        no_output = format == "sidecar" or format in LIBRARIES
        is_path = isinstance(self.place, Path)
        is_address = is_path and "://" in str(output)
        of_files = {"resume": resume, "overwrite": self.overwrite}
        unfit = next((name for name, on in of_files.items() if on and not is_path and not no_output), None)
        for wrong, message in (
            (format not in FILE_FORMATS, f"format must be one of {', '.join(FILE_FORMATS)}, not {format!r}"),
            (batch_size < 1, f"batch_size must be at least 1, not {batch_size}"),
            (no_output and output, f"{format} captions go beside or into their pictures: leave out output (--output)"),
            (unfit, f"{unfit} (--{unfit}) needs output (--output FILE): a stream cannot be read again"),
            (stray, f"{stray} (--{stray}) goes with the format sidecar only"),
            (self.coco_images and format != "coco", "coco_images (--coco-images) goes with the format coco only"),
            (is_address, f"{output}: is an address: only `captioner cluster` writes to addresses"),
            (isinstance(self.place, Path) and self.place.is_dir(), f"{output}: is a folder: give the name of a file"),
        ):
            if wrong:
                raise OptionError(message)
        check_extension(sidecar.get("extension", ""))

    def target(self, paths: Collection[str], inline: dict[str, bytes], progress: Progress) -> Output:
        """Where the captions of these pictures go; `inline` is the content of those that are no files.

        Raises OptionError, DataError, OutputError and DeviceError.
        """
        if inline and (self.format == "sidecar" or self.format in LIBRARIES):
            raise OptionError("a picture on stdin has no place for captions beside or inside it: choose another format")
        if self.format == "sidecar" or self.format in LIBRARIES:
            sidecar, fail = self.sidecar or {}, progress.fail_to_write
            place = place_of(self.format, paths, self.metadata, self.overwrite, fail, **sidecar)
            if isinstance(place, XmpFiles) and self.options.unsure == "skip":
                place.limits = f"confidence {self.options.min_confidence}, familiar {self.options.min_familiar}"
            return place
        ids = _image_ids(paths, self.coco_images) if self.format == "coco" else None
        number = self.options.num_captions
        render = writer(self.format, number, ids, lambda path: thumbnail(inline.get(path, path)))
        return in_one(self.place, self.format, number, render, self.overwrite)


def chosen(output: AnyPath | TextIO | None, format: str | None, progress: Progress) -> tuple[Path | TextIO, str]:
    """Where captions go, and in which format: the one asked for, or else that of the suffix of `output`.

    Raises OptionError for a suffix of no format.
    """
    if not isinstance(output, str | os.PathLike):
        return output or sys.stdout, format or "text"
    place = Path(output)
    if format is None or place.suffix.lower() in NOT_WRITTEN:
        return place, format_of(place)
    if FORMAT_OF_SUFFIX.get(place.suffix.lower(), format) != format:
        progress.note(f"note: {place} will hold {format}, as --format says, whatever its suffix says")
    return place, format


def check_metadata(format: str, options: MetadataOptions | None) -> None:
    """Raise OptionError for an option that this format does not use."""
    for spec in option_specs(MetadataOptions) if options else ():
        if getattr(options, spec.name) != spec.default and format not in spec.strategies:
            formats = " or ".join(spec.strategies)
            raise OptionError(f"{spec.name} ({spec.flag}) goes with the format {formats} only")


def place_of(
    format: str,
    paths: Collection[str],
    options: MetadataOptions | None = None,
    overwrite: bool = False,
    fail: Callable[[str, str], object] = lambda path, reason: None,
    **sidecar: str,
) -> Place:
    """A place of its own for the caption of each picture: format is xmp, embed, or sidecar as `Sidecars` has it.

    `fail` takes the path of a picture whose caption `write` cannot write, and what to say of it. Raises DeviceError
    without the extra [metadata] for embed.
    """
    options = options or MetadataOptions()
    if format == "sidecar":
        return Sidecars(paths, overwrite or options.overwrite_edited, **sidecar)
    return LIBRARIES[format](paths, options, overwrite, fail)


def in_one(place: Path | TextIO, format: str, num_captions: int, render: Writer, overwrite: bool = False) -> Output:
    """All captions in one place: a file or an open one. Raises what `OneFile` raises."""
    if isinstance(place, Path):
        kind = Gallery if format == "html" else OneFile
        return kind(place, format, num_captions, render, overwrite)
    return Stream(place, format, render)


def _image_ids(paths: Iterable[str], coco_images: AnyPath | None) -> dict[str, int] | None:
    """Image ids by name, if there is a list. Raises DataError when a picture has no id, or two have the same."""
    ids = read_image_ids(Path(coco_images)) if coco_images else None
    owner = OnDisk()  # the last picture with each id; its ids come in the order of the pictures
    try:
        owner.put((str(image_id(path, ids)), path) for path in paths)
    except DataError as error:
        raise DataError(f"{error}; or write jsonl, which needs no ids") from error
    for path, last in zip(paths, owner.in_order(), strict=False):  # fewer ids than pictures if two have the same
        if path != last:
            raise DataError(f"{last}: has the same image id as {path}: give coco_images (--coco-images FILE)")
    return ids
