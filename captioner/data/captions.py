"""Captions files in every common layout, which is recognised from the content: `read_captions`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from captioner.data.readers import columns, documents, folders, lines, wording
from captioner.data.readers.base import Entry, bare, names_picture, read_text, writable
from captioner.errors import DataError, counted

_KNOWN = (
    "lines 'NAME.jpg#0<TAB>caption' (Flickr8k, Flickr30k), 'NAME.jpg#zhc#0 caption' (Flickr8k-CN), "
    "'NAME.jpg| 0| caption' or 'NAME.jpg caption'; a table whose first line names the columns, such as "
    "'image,caption' (comma, tab, bar or semicolon), or whose first column names pictures; JSON lines or a JSON list "
    "with such names; COCO's captions JSON and results; Karpathy's split JSON; JSON by the names of pictures; a folder "
    "or a tar file with a .txt beside each picture"
)
# Names that other people use for "train" and "val".
_SPLITS = {"restval": "train", "training": "train", "validation": "val", "valid": "val", "dev": "val"}


@dataclass(frozen=True)
class CaptionSet:
    """The content of a captions file."""

    path: Path
    form: str  # the layout, in words
    captions: dict[str, list[str]]  # by the name of the picture, in the order of the file
    splits: dict[str, str]  # "train", "val", "test", ... by name, where the file says so
    empty: int = 0  # captions without a character; they are left out
    ids: dict[str, int | str] = field(default_factory=dict)  # what COCO's results call image_id, by name
    notes: list[str] = field(default_factory=list)  # what was read otherwise than it stands there

    def with_words(self) -> CaptionSet:
        """The same without captions that have no letter and no number, which are noted. Raises DataError."""
        kept = {name: [text for text in texts if any(map(str.isalnum, text))] for name, texts in self.captions.items()}
        if not (lost := sum(map(len, self.captions.values())) - sum(map(len, kept.values()))):
            return self
        if not any(kept.values()):
            raise DataError(f"{self.path}: none of the captions has words")
        captions = {name: texts for name, texts in kept.items() if texts}
        note = f"left out: {counted(lost, 'caption')} without words"
        return replace(self, captions=captions, notes=[*self.notes, note])


def read_captions(path: Path) -> CaptionSet:
    """Read a captions file, or a folder with a .txt beside each picture.

    Raises DataError, which lists the known layouts if the file has none of them.
    """
    notes: list[str] = []
    form, entries = read_entries(path, notes)
    try:
        return _collect(path, form, entries, notes)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_entries(path: Path, notes: list[str], what: str = "captions file") -> tuple[str, list[Entry]]:
    """The layout of a captions file or folder, and its entries, without marks such as <start> and with words joined.

    What was read otherwise than it stands there is added to `notes`. `what` says in errors what the file should be.
    Raises DataError.
    """
    try:
        form, found = _open(path, notes, what)
        entries = list(found)
    except DataError as error:
        message = str(error)
        named = message.startswith((f"{path}: ", f"{path}{os.sep}"))  # the file itself, or one in the folder
        raise DataError(message if named else f"{path}: {message}") from error
    if wording.hold_words([entry.texts for entry in entries]):
        entries = [entry._replace(texts=[wording.sentence(entry.texts)]) for entry in entries]
        notes.append(f"lists of words are joined to sentences, such as {entries[0].texts[0][:80]!r}")
    misread = [(text, meant) for entry in entries for text in entry.texts if (meant := wording.misread(text))]
    if misread:
        notes.append(
            f"captions with wrong characters, {len(misread)} times, such as {misread[0][0][:80]!r} for "
            f"{misread[0][1][:80]!r}: a program took UTF-8 for Windows-1252; open the file there as UTF-8"
        )
    marked = 0
    for number, entry in enumerate(entries):
        texts = list(map(wording.without_marks, entry.texts))
        if texts != entry.texts:
            marked += 1
            example = entry.texts[0]
            entries[number] = entry._replace(texts=texts)
    if marked:
        notes.append(f"marks around captions are dropped, {marked} times, as from {example[:80]!r}")
    return form, entries


def _open(path: Path, notes: list[str], what: str = "captions file") -> tuple[str, Iterator[Entry]]:
    """The layout, and an iterator that reads the entries."""
    if path.is_dir() and (files := folders.files_in(path)):  # metadata files or tar files
        parts = (_open_part(file, path, notes) for file in files)
        return f"folder with {files[0].name}", chain.from_iterable(parts)
    if path.is_dir():
        return folders.FORM, folders.read_folder(path, notes)
    if ".tar" in path.suffixes or path.suffix == ".tgz":
        return folders.TAR_FORM, folders.read_tar(path, notes)
    source, read = io.StringIO(read_text(path, what, notes), newline=""), list[str]()
    for line in source:
        read.append(line)
        if (first := bare(line)).strip():
            break
    else:
        raise DataError(f"the {what} is empty")
    physical = chain(read, source)
    text = map(bare, physical)
    if first.lstrip()[0] in "{[":
        return _open_json(first, text, notes)
    if form := lines.form_of(first):
        return form, lines.read_lines(text, form)
    if table := columns.columns_of(first):
        return table.form, columns.read_table(physical, table, notes)
    raise _unknown(first)


def _open_part(file: Path, folder: Path, notes: list[str]) -> Iterator[Entry]:
    """The entries of a file in a folder, whose pictures lie beside it, perhaps in a folder named as a split."""
    beside = file.parent.relative_to(folder)
    for entry in _open(file, notes)[1]:
        split = entry.split or (beside.name if {beside.name} & {"train", "val", "test", *_SPLITS} else "")
        yield entry._replace(name=(beside / entry.name).as_posix() if entry.name else None, split=split)


def _open_json(first: str, text: Iterator[str], notes: list[str]) -> tuple[str, Iterator[Entry]]:
    """A first line that is a JSON object by itself begins JSON lines, unless it is the whole document."""
    try:
        content = documents.parsed(first, "")
    except DataError:
        content = documents.parsed("\n".join(text), "neither JSON nor JSON lines")
    else:
        if isinstance(content, dict) and documents.form_of(content) is None:
            return "JSON lines", documents.read_lines(text, notes)
        if sum(bool(line.strip()) for line in text) > 1:
            raise DataError("there is more after the JSON document in the first line")
    form = documents.form_of(content)
    if form is None:
        raise _unknown(first)
    return form, documents.read(content, form, notes)


def _unknown(first: str) -> DataError:
    if "ï»¿" in first:  # a byte-order mark that was taken for letters
        return DataError("a program took its UTF-8 for Windows-1252: open it there as UTF-8, and save it again")
    return DataError(f"captions in no known layout: the first line is {first[:80]!r}; known are {_KNOWN}")


def plain(text: str) -> str:
    """A caption in one line, without spaces around it."""
    return writable(" ".join(text.split()) if "\n" in text or "\r" in text else text).strip()


def _collect(path: Path, form: str, entries: list[Entry], notes: list[str]) -> CaptionSet:
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    ids: dict[str, int | str] = {}
    number = empty = 0
    for place, (name, texts, split, its, *_) in enumerate(entries, start=1):
        if name is None:
            raise documents.needs(f"entry {place}", {"image_id": its, "caption": texts[0]})
        name = writable(name.strip())
        if split:
            split = split.strip().lower()
            splits[name] = _SPLITS.get(split, split)
        if its is not None:
            ids[name] = its
        for text in texts:
            number += 1
            if not name:
                raise DataError(f"caption {number} has no picture name: {text[:80]!r}")
            if "\n" in name or "\r" in name:
                raise DataError(f"caption {number} has a picture name of several lines, {name[:80]!r}")
            if text := plain(text):
                captions.setdefault(name, []).append(text)
            else:
                empty += 1
    if not captions:
        raise DataError("the captions file is empty" if not empty else "every caption is empty")
    if all(text.isdigit() or names_picture(text) for texts in captions.values() for text in texts):
        raise DataError(f"all captions are numbers or names of pictures, such as {text!r}: name the column 'caption'")
    ids = {name: ids[name] for name in captions} if captions.keys() <= ids.keys() else {}
    splits = {name: splits[name] for name in captions if name in splits}
    return CaptionSet(path, form, captions, splits, empty, ids, notes)
