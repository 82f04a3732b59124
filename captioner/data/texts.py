"""Captions without pictures: what people wrote of photographs that are not there."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from captioner.data.captions import read_captions
from captioner.data.readers.base import text_lines, writable
from captioner.errors import DataError
from captioner.files import sha256_of

_NAMES_PICTURES = re.compile(r"\t|\.(jpe?g|png|webp)\b", re.IGNORECASE)  # a line of a captions file


@dataclass(frozen=True)
class Texts:
    """Captions in groups, one for each photograph, and for each group the number of its source in `sources`."""

    captions: list[list[str]]
    source: list[int]
    sources: list[str]
    origin: dict[str, Any]  # what a checkpoint tells of them, as JSON

    def __len__(self) -> int:
        return sum(map(len, self.captions))


def read_texts(path: Path) -> Texts:
    """Read captions without pictures.

    Takes JSON lines with a list `captions` in each, and perhaps `source` (.jsonl, or compressed, .jsonl.gz); a .txt
    file with a caption a line; and the other files that `read_captions` knows, whose names only group the captions.
    Captions of different sources are written in different manners, so a group remembers its source.
    Raises DataError.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give a file of captions")
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        found = list(_grouped(path))
    # The first line may name the columns of a table.
    elif path.suffix == ".txt" and not any(map(_NAMES_PICTURES.search, islice(_lines(path), 2))):
        found = [([line.strip()], "") for line in _lines(path) if line.strip()]
    else:
        found = [(captions, "") for captions in read_captions(path).captions.values()]
    if not found:
        raise DataError(f"{path}: holds no captions")
    sources = sorted({source for _, source in found})
    captions, source = [captions for captions, _ in found], [sources.index(source) for _, source in found]
    origin = {"file": path.name, "sha256": sha256_of(path), "photographs": len(found), "sources": sources}
    return Texts(captions, source, sources, {**origin, "captions": sum(map(len, captions))})


def _lines(path: Path) -> Iterator[str]:
    if path.suffix != ".gz":
        yield from text_lines(path, "file of captions")
        return
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            yield from stream
    except (OSError, EOFError, UnicodeError, zlib.error) as error:
        raise DataError(f"{path}: not a text file that gzip compressed ({error})") from error


def _grouped(path: Path) -> Iterator[tuple[list[str], str]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            group = json.loads(line)
            captions, source = group["captions"], group.get("source", "")
            if not isinstance(captions, list) or not all(isinstance(text, str) for text in (source, *captions)):
                raise TypeError("captions must be a list of texts, and source a text")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f'{path}: line {number} is not a group of captions, such as {{"captions": ["a dog runs", "a brown dog '
                f'in the grass"]}} ({error})'
            ) from error
        if kept := [writable(text).strip() for text in captions if text.strip()]:
            yield kept, writable(source)
