"""Captions beside pictures: in folders, in tar files of webdataset, and in the metadata files of image folders."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from captioner.data.readers.base import Entry, read_text
from captioner.data.readers.documents import entry_of, parsed
from captioner.errors import DataError, InputError
from captioner.files import decoded, without_suffix
from captioner.pictures.find import find_pictures
from captioner.pictures.load import SUFFIXES

FORM = "folder with a .txt beside each picture"
TAR_FORM = "tar file with a .txt beside each picture"
# The first one that a picture has counts. A .txt beside a .caption holds tags; JSON counts only where nothing else is.
TEXTS = (".caption", ".txt", ".json")
METADATA = ("metadata.jsonl", "metadata.csv")


def files_in(folder: Path) -> list[Path]:
    """The metadata files of an image folder, or its tar files. None if pictures have texts beside them."""
    metadata = [file for name in METADATA for file in (*folder.glob(name), *sorted(folder.glob(f"*/{name}")))]
    try:
        pictures = find_pictures([str(folder)], recursive=True)
    except InputError:
        return metadata or sorted(folder.glob("*.tar"))
    return [] if any(map(beside, pictures)) else metadata


def read_folder(folder: Path, notes: list[str]) -> Iterator[Entry]:
    """Read the text beside each picture in the folder and its subfolders. Raises DataError if there is none."""
    pictures = find_pictures([str(folder)], recursive=True)
    described = [(Path(picture), texts) for picture in pictures if (texts := beside(picture))] or [
        (Path(picture), texts) for picture in pictures if (texts := beside(picture, TEXTS))
    ]
    if not described:
        raise DataError("none of the pictures in this folder has its captions in a .txt, .caption or .json beside it")
    if several := sum(len({text.suffix for text in texts}) > 1 for _, texts in described):
        notes.append(f"pictures with a .txt and a .caption, of which the .caption counts: {several}")
    guessed: list[str] = []
    for picture, texts in described:
        name = picture.relative_to(folder).as_posix()
        yield _beside_picture(name, texts[0].name, read_text(texts[0], "text file", guessed))
    notes += [f"{guessed[0]}; so are {len(guessed) - 1} others"] if len(guessed) > 1 else guessed


def beside(picture: str, suffixes: Sequence[str] = TEXTS[:2]) -> list[Path]:
    """The texts that belong to a picture, the one that counts first; photo.jpg.txt goes before photo.txt."""
    stem = without_suffix(picture)
    names = (name + suffix for suffix in suffixes for name in (picture, stem))
    return [Path(name) for name in names if os.path.isfile(name)]  # noqa: PTH113  # faster, and there may be very many


def read_tar(file: Path, notes: list[str]) -> Iterator[Entry]:
    """Read the texts of a tar file's pictures, which are called ARCHIVE.tar/NAME. Raises DataError."""
    names: dict[str, str] = {}
    texts: dict[str, dict[str, str]] = {}  # of a picture, by their suffixes
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                stem, suffix = member.name.removesuffix(PurePath(member.name).suffix), PurePath(member.name).suffix
                if suffix.lower() in SUFFIXES:
                    names[stem] = member.name
                elif suffix in TEXTS and (content := archive.extractfile(member)):
                    texts.setdefault(stem, {})[suffix] = decoded(content.read())[0]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"not a tar file, or a damaged one ({error})") from error
    for stem in filter(names.__contains__, texts):
        suffix = min(texts[stem], key=TEXTS.index)
        yield _beside_picture(f"{file.name}/{names[stem]}", stem + suffix, texts[stem][suffix])


def _beside_picture(name: str, file: str, text: str) -> Entry:
    """The entry of a picture with this text beside it. In JSON it is the caption, elsewhere each line is one."""
    if file.endswith(".json"):  # of img2dataset
        content = parsed(text, f"{file} is not JSON")
        return entry_of({**content, "file_name": name} if isinstance(content, dict) else content, file, [])
    return Entry(name, _lines(text))


def texts_in(file: Path) -> list[str]:
    """The captions in a text beside a picture; an empty one where it holds none. Raises DataError."""
    return _lines(read_text(file, "text file")) or [""]


def _lines(text: str) -> list[str]:
    """The lines of a text beside a picture, each of which is a caption unless it is empty."""
    lines = (line.strip("\ufeff") for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return list(filter(str.strip, lines))
