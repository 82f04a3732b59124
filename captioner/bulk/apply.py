"""Captions that a person corrected in a file, put where the pictures have theirs: `apply_captions`."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from captioner.bulk.alt import fill, noting
from captioner.bulk.formats import check_extension
from captioner.bulk.outputs import Place
from captioner.bulk.wanted import check_metadata, place_of
from captioner.data.captions import plain, read_entries
from captioner.data.names import find_files
from captioner.data.readers.base import names_picture, writable
from captioner.data.readers.wording import misread
from captioner.documents.document import EPUB, find_documents
from captioner.documents.gaps import Gap, find_gaps
from captioner.errors import DataError, ImageError, InputError, OptionError, OutputError, one_line, reason_of
from captioner.files import AnyPath, listed, sha256_of
from captioner.options import APPLY_FORMATS, MetadataOptions

_FILLED = ("lacking", "titled", "vector", "unreadable")  # states of pictures whose alternative text a person may give


class _Given(NamedTuple):
    """The caption that a file gives to a picture."""

    text: str
    unsure: str | None  # see `data.readers.base.Entry`


@dataclass
class Applied:
    """What `apply_captions` did, or in a dry run would do."""

    written: list[tuple[str, str, str]] = field(default_factory=list)  # the picture, the file, the caption
    same: int = 0  # captions that were there already; for alt also those for which no document had a place
    skipped: int = 0  # empty, because captioner left them empty and no person has filled them in
    kept: list[str] = field(default_factory=list)  # pictures with a person's other caption
    missing: list[str] = field(default_factory=list)  # names in the file that lead to no picture
    failed: list[str] = field(default_factory=list)  # a line each that says why
    notes: list[str] = field(default_factory=list)  # what was read otherwise than it stands in the file


def apply_captions(
    file: AnyPath,
    *,
    format: str,
    documents: AnyPath | Iterable[AnyPath] = (),
    images: AnyPath | None = None,
    metadata: MetadataOptions | None = None,
    extension: str = "",
    dry_run: bool = False,
) -> Applied:
    """Put the captions of a file where the pictures have theirs, as a person's; what `captioner apply` does.

        captioner.apply_captions("edited.csv", format="xmp")

    `file` is what `caption_files` or `read_files` wrote and a person edited, in text, jsonl or csv. Its paths count
    as they stand there, then from the file's own folder, or in `images`. `format` is xmp, sidecar (with `extension`),
    embed, or alt, which fills in alternative text that `documents` lack, and changes none that is there.
    A caption of ours is replaced, unless it says the same: that one stays ours. A person's other one is kept, unless
    `metadata` says `overwrite_edited`; nobody knows who wrote a text file. An empty caption means that a person wants
    none. But one beside a reason in the column `unsure` was left empty by captioner, and is skipped; so is one where
    neither that column nor a caption of ours is.
    One picture does not stop the others. `dry_run` only says what would be written. Nothing is written if the file is
    in doubt: raises DataError then. Raises also InputError if none of its pictures exists, OptionError and DeviceError.
    """
    options, into = metadata or MetadataOptions(), listed(documents)
    if format not in APPLY_FORMATS:
        raise OptionError(f"format must be one of {', '.join(APPLY_FORMATS)}, not {format!r}")
    if bool(into) != (format == "alt"):
        raise OptionError("the format alt needs documents to fill in, and the other formats take none")
    check_metadata(format, replace(options, overwrite_edited=False) if format == "sidecar" else options)
    if extension and format != "sidecar":
        raise OptionError("extension (--extension) goes with the format sidecar only")
    check_extension(extension)
    done = Applied()
    captions = _captions(Path(file), Path(images) if images else None, format in ("xmp", "sidecar"), done)
    if format == "alt":
        _fill(find_documents(into), captions, done, dry_run)
        return done
    place = place_of(format, list(captions), options, extension=extension)
    for path, given in captions.items():
        try:
            _put(place, path, given, options.overwrite_edited, done, dry_run)
        except (DataError, OutputError, OSError) as error:
            done.failed.append(reason_of(error, path))
    return done


def _captions(file: Path, images: Path | None, beside: bool, done: Applied) -> dict[str, _Given]:
    """What the file gives to each picture that is there, whose caption goes `beside` or into it.

    Raises DataError and InputError.
    """
    given: dict[str, _Given] = {}
    for entry in read_entries(file, done.notes)[1]:
        name, text = writable(entry.name or ""), plain(entry.texts[0])
        if not name:
            raise DataError(f"{file}: has a caption without the path of a picture: {text[:80]!r}")
        if meant := misread(text):
            raise DataError(f"{file}: has {text[:80]!r} for {meant[:80]!r}: open it there as UTF-8, and save it again")
        if "\ufffd" in text or 2 * text.count("?") > len(text):
            raise DataError(f"{file}: has lost the letters of {text[:80]!r}: save the original again, as UTF-8")
        _add(given, name, _Given(text, entry.unsure), file)
    if not given:
        raise DataError(f"{file}: has no captions")
    texts = [text for text, _ in given.values() if text]
    if texts and all(re.fullmatch(r"[-\d.,]+", text) or names_picture(text) for text in texts):
        raise DataError(f"{file}: has {texts[0]!r} where captions should be: name their column 'caption'")
    files = {name: path for name in given if (path := _there(name, file.parent, images))}
    if images:
        files |= {name: str(path) for name, path in find_files(given.keys() - files.keys(), images).items()}
    done.missing += [name for name in given if name not in files]
    if not files:
        remedy = "say in which folder they are with images (--images DIR)"
        raise InputError(f"{file}: none of its pictures can be found, such as {one_line(min(given))}: {remedy}")
    by_place: dict[str, str] = {}
    captions: dict[str, _Given] = {}
    for name in filter(files.get, given):
        picture = Path(files[name])  # a link has files of its own beside it
        where = picture.parent.resolve() / picture.name if beside else picture.resolve()
        _add(captions, by_place.setdefault(str(where), files[name]), given[name], file)
    return captions


def _add(given: dict[str, _Given], name: str, new: _Given, file: Path) -> None:
    if given.setdefault(name, new).text != new.text:
        raise DataError(f"{file}: has two captions for {one_line(name)}: leave one of them")


def _there(name: str, *folders: Path | None) -> str | None:
    """The path as it stands, or in one of the folders, whichever is a file."""
    paths = (name, *(str(folder / name) for folder in folders if folder))
    return next(filter(os.path.isfile, paths), None)


def _put(place: Place, path: str, given: _Given, replaced: bool, done: Applied, dry_run: bool) -> None:
    there, here, text = place.current(path), place.here(path), given.text
    ours = there is not None and there.ours
    if there and plain(there.text) == text:
        text = there.text  # with its line breaks
    if here and here.text == text:  # also ours, which nobody has changed
        done.same += 1
    elif not text and (given.unsure or (given.unsure is None and not ours)):
        done.skipped += 1
    elif there and not ours and there.text != text and not replaced:
        done.kept.append(path)
    else:
        if not dry_run and there and ours and there.text == text:  # it only goes to another place
            place.restore({"path": path, "caption": text, **there.facts()}, text)
        elif not dry_run:
            place.correct(path, text)
        done.written.append((path, place.place(path).partition("\t")[2] or path, text))


def _fill(documents: list[str], captions: dict[str, _Given], done: Applied, dry_run: bool) -> None:
    """Fill in the alternative texts that documents lack."""
    texts = {os.path.realpath(path): given.text for path, given in captions.items() if given.text}
    done.skipped = len(captions) - len(texts)
    books = any(name.lower().endswith(EPUB) for name in documents)
    inside = {sha256_of(Path(path)): path for path in texts} if books else {}
    used = set()
    for document in documents:
        gaps: list[Gap] = []
        with noting(done.failed, document):
            for gap in find_gaps(document):
                picture = _picture(gap, inside)
                if gap.state in _FILLED and picture in texts:
                    used.add(picture)
                    gaps.append(replace(gap, state="written", text=texts[picture]))
        if not dry_run:
            gaps = fill(document, gaps, done.failed)
        done.written += [(gap.picture, document, gap.text or "") for gap in gaps if gap.state == "written"]
    done.same = len(texts) - len(used)


def _picture(gap: Gap, inside: dict[str, str]) -> str:
    """The file that a document shows, by its path, or in an EPUB by its content."""
    source = gap.source
    if not source or source.remote:
        return ""
    if not source.member:
        return os.path.realpath(source.place)
    with suppress(ImageError):
        return inside.get(hashlib.sha256(source.read()).hexdigest(), "")
    return ""
