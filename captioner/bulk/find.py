"""Pictures found by a sentence or by another picture, and those that are nearly the same: `open_index`.

Nothing here needs torch while all pictures are in the index.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TextIO

import numpy as np

from captioner.bulk.duplicates import grouped
from captioner.bulk.formats import csv_line, format_of, gallery, jsonl
from captioner.bulk.index import FEW, NONE, Floats, IndexFile, Numbers, index_folder
from captioner.bulk.moves import Digests, File, stamp_of
from captioner.bulk.outputs import Output
from captioner.bulk.progress import Progress
from captioner.bulk.reuse import is_for, store_of
from captioner.bulk.run import check_waiting
from captioner.data.spreadsheets import quoted
from captioner.errors import ImageError, OptionError, OutputError, one_line
from captioner.files import AnyPath, listed, replacing, sha256_of
from captioner.inference.parallel import in_batches
from captioner.inference.reader import load_reader
from captioner.machine import available_cpus
from captioner.network.header import find_checkpoint
from captioner.options import FIND_FORMATS
from captioner.pictures.find import STDIN, Stdin, find_pictures, read_stdin
from captioner.pictures.load import ImageSource
from captioner.pictures.pairs import one_of_each

if TYPE_CHECKING:  # they import torch
    from captioner.inference.captioner import Captioner
    from captioner.inference.results import Row


SAME = 0.88  # the similarity of features from which pictures are nearly the same: see docs/finding.md
_ROUGH = 0.15  # by which the vectors of such pictures may be less similar than their features
_PIECE = 1000  # results that are sorted at a time


@dataclass(frozen=True)
class Match:
    """A picture that was found. `score` is a cosine: 1 is the best."""

    path: str
    score: float

    def row(self) -> Row:
        """It as plain data."""
        return {"path": self.path, "score": round(self.score, 4)}


def open_index(
    paths: AnyPath | Iterable[AnyPath],
    *,
    checkpoint: AnyPath | None = None,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    model: Captioner | None = None,
    index: AnyPath | None = None,
    recursive: bool = False,
    stdin: Stdin = (),
    sentences: Iterable[str] = (),
    progress: Progress | None = None,
) -> Index:
    """Make pictures ready to be found; `captioner find` does it, and then calls a method of what this returns.

        index = captioner.open_index("photos", recursive=True)
        for match in index.find("a dog in the snow"):
            print(match.path, match.score)

    `paths`, `recursive` and `stdin` are those of `caption_files`. `checkpoint`, `device`, `precision` and `engine` are
    those of `load`, which is called once a picture must be encoded; `model` is one that was loaded already. What was
    encoded is kept in the user's cache, or in the file `index`, for all folders and for `caption_files`, too. A picture
    that was encoded there is known by its content, wherever it is. `sentences` will be searched for: they are checked
    before anything is encoded. `progress` says how it is going.
    Raises InputError, OptionError, OutputError (of the index), CheckpointError (a damaged checkpoint, or one that finds
    no pictures), DeviceError and OSError.
    """
    content = read_stdin(stdin) if STDIN in (arguments := listed(paths)) else []
    if isinstance(content, bytes):
        raise OptionError("a picture on stdin is in no folder: give its path")
    found = partial(find_pictures, arguments, recursive, content)
    how = {"device": device, "precision": precision, "engine": engine}
    opened = Index(found, checkpoint, how, model, index, progress or Progress(quiet=True, say=lambda line: None))
    for sentence in filter(None, sentences):
        opened.unknown(sentence)
    opened.update()
    return opened


class Index:
    """Pictures that can be found. Make one with `open_index`."""

    def __init__(
        self,
        pictures: Callable[[], list[str]],
        checkpoint: AnyPath | None,
        how: dict[str, str],
        model: Captioner | None,
        file: AnyPath | None,
        progress: Progress,
    ) -> None:
        self._pictures, self._how, self._model, self._progress = pictures, how, model, progress
        self._checkpoint = (model and model.path) or find_checkpoint(checkpoint)
        self._reader = load_reader(self._checkpoint)
        self._file = file
        self._index = self._existing()
        self._paths: list[str] = []  # in the order of the numbers of their vectors
        self._numbers = self._starts = np.empty(0, np.int64)  # each number once, and where its paths begin and end
        self._said: set[str] = set()  # which of the pictures failed, while they were encoded
        self.failed: dict[str, str] = {}  # the pictures that cannot be read, and why

    def __len__(self) -> int:
        """The number of pictures that can be found."""
        return len(self._paths)

    def update(self) -> None:
        """Look at the folders again: encode pictures that came or changed, and forget those that are gone.

        Raises what `open_index` raises.
        """
        self._said.clear()
        pictures = self._pictures()
        check_waiting(pictures, {}, Output())
        paths = list(one_of_each(pictures))
        numbers, self.failed = self._numbered(paths)
        for reason in self.failed.values():
            if reason not in self._said:
                self._progress.say(f"captioner: {one_line(reason)}")
        order = np.argsort(numbers, kind="stable")[np.count_nonzero(numbers == NONE) :]
        self._paths = [paths[place] for place in order]
        self._numbers, starts = np.unique(numbers[order], return_index=True)
        self._starts = np.append(starts, len(order))

    def find(self, text: str = "", n: int = 20, *, like: ImageSource | None = None, without: str = "") -> list[Match]:
        """The `n` pictures that a sentence describes best, the best first.

        `like` is a picture that they shall be similar to, also without a sentence. `without` says what they shall not
        show. Raises OptionError for a sentence of which the model knows no word, ImageError for a picture that cannot
        be read, and what `open_index` raises.
        """
        if n < 1:
            raise OptionError(f"n (-n) must be at least 1, not {n}")
        wanted = [self._sentence(text)] if text else []
        if like is not None:
            wanted.append(self._picture(like))
        if not wanted:
            raise OptionError("give a sentence, or a picture that others shall be like (--like)")
        queries = [_unit(np.sum(wanted, 0)), *([self._sentence(without)] if without else [])]
        itself = os.path.realpath(like) if isinstance(like, str | os.PathLike) else None
        matches = (match for match in self._ranked(queries) if os.path.realpath(match.path) != itself)
        return list(islice(matches, n))

    def like(self, picture: ImageSource, n: int = 20) -> list[Match]:
        """The `n` pictures that are most similar to one, which itself is left out. Raises what `find` raises."""
        return self.find(n=n, like=picture)

    def duplicates(self, threshold: float = SAME) -> list[list[Match]]:
        """Groups of pictures that are the same or nearly so, in each the largest file first.

        The score says how similar a picture is to another one of its group. `threshold` is the similarity of features
        from which two pictures count as nearly the same. Raises OptionError, OutputError and OSError.
        """
        if not 0 < threshold <= 1:
            raise OptionError(f"threshold (--threshold) must be more than 0 and at most 1, not {threshold:g}")
        if not self._paths or self._index is None:
            return []
        numbers, index = self._numbers, self._index
        groups = grouped(
            self._vectors(numbers), lambda places: index.standardised(numbers[places]), threshold - _ROUGH, threshold
        )
        together = {place for group in groups for place in group}
        copies = {*np.flatnonzero(np.diff(self._starts) > 1).tolist()}
        groups += [{place: 1.0} for place in sorted(copies - together)]
        found = []
        for group in groups:
            group |= dict.fromkeys(group.keys() & copies, 1.0)
            paths = {path: value for place, value in group.items() for path in self._at(place)}
            sizes = {path: stamp[0] for path in paths if (stamp := stamp_of(path))}
            if len(sizes) > 1:
                largest_first = sorted(sizes, key=lambda path: (-sizes[path], path))
                found.append([Match(path, paths[path]) for path in largest_first])
        return sorted(found, key=lambda matches: matches[0].path)

    def _ranked(self, queries: list[Floats]) -> Iterator[Match]:
        """The pictures that are still there, the best first."""
        if not self._paths or self._index is None:
            return
        scores = score(self._index.products(self._numbers, np.stack(queries, 1)))
        for place in best_first(scores):
            for path in self._at(place):
                if os.path.lexists(path):
                    yield Match(path, float(scores[place]))

    def _at(self, place: int) -> list[str]:
        """The pictures that share the vector at this place: copies."""
        return self._paths[self._starts[place] : self._starts[place + 1]]

    def unknown(self, text: str) -> tuple[str, ...]:
        """The words of a sentence that the model does not know. Raises OptionError if it knows none."""
        unknown = self._reader.unknown(text)
        if not {*self._reader.vocabulary.tokenise(text)} - {*unknown}:
            raise OptionError(f"{one_line(text)!r}: the model knows none of these words: say it in others")
        return unknown

    def _sentence(self, text: str) -> Floats:
        if unknown := self.unknown(text):
            self._progress.note(f"note: the model does not know {', '.join(map(one_line, unknown))}: left out")
        return np.asarray(self._reader.sentences([text])[0])

    def _picture(self, picture: ImageSource) -> Floats:
        """The vector of any picture."""
        if not isinstance(picture, str | os.PathLike):
            features = self._loaded().encode([picture])
            return np.asarray(self._reader.pictures(features)[0])
        path = os.fspath(picture)
        numbers, failed = self._numbered([path])
        if failed:
            raise ImageError(failed[path])
        return np.asarray(self._vectors(numbers)[0])

    def _vectors(self, numbers: Sequence[int] | Numbers) -> Floats:
        """Vectors (N, D) by their numbers."""
        assert self._index
        return self._index.products(np.asarray(numbers, np.int64), np.eye(self._reader.size, dtype=np.float32))

    def _numbered(self, paths: list[str]) -> tuple[Numbers, dict[str, str]]:
        """The numbers (N,) of pictures, and the reasons why some, with `NONE`, cannot be read. New ones are encoded."""
        index, read, moved, contents = self._index, Digests(), list[File](), list[bytes]()
        with ThreadPoolExecutor(available_cpus()) as pool:
            for some in in_batches(paths, FEW):
                unchanged = index.known(some) if index else {}
                moved += pool.map(read.file, [path for path in some if path not in unchanged])
                contents += [(unchanged.get(path) or read.file(path)).digest for path in some]
        numbers = index.numbers(contents) if index else np.full(len(paths), NONE)
        new = {contents[place]: paths[place] for place in np.flatnonzero(numbers == NONE) if contents[place]}
        reasons = index.failures(new) if index else {}
        if new.keys() - reasons.keys():  # those that could not be read are then tried again
            index, reasons = self._encode(new, read)
            numbers = index.numbers(contents)
        if index and moved:
            index.remember([file for file in moved if file.digest])
        failed = {}
        for place in np.flatnonzero(numbers == NONE):
            path = paths[place]
            why = "changes just now" if os.path.lexists(path) else "no such file"
            failed[path] = f"{path}: {reasons.get(contents[place], why)}"
        return numbers, failed

    def _encode(self, pictures: dict[bytes, str], digests: Digests) -> tuple[IndexFile, dict[bytes, str]]:
        """Encode pictures, whose paths stand by their digests. Returns the index, and why some could not be read."""
        model = self._loaded()
        store = store_of(model, self._file or True, digests, self._progress.say)
        assert store  # the checkpoint has a matcher
        try:
            store.index.remember([])
        except (OutputError, OSError) as error:
            if self._file:
                raise
            self._progress.note(f"note: the index is kept only until the end: {error}")
            self._temporary = TemporaryDirectory()
            self._file = Path(self._temporary.name) / "pictures.sqlite"
            return self._encode(pictures, digests)
        self._index = store.index
        from captioner.inference.results import row_of

        rows = map(row_of, model.encode_named(((path, path) for path in pictures.values()), store=store))
        self._progress.begin(len(pictures))
        errors = {row["path"]: row["error"] for row in self._progress.watch(rows) if "error" in row}
        self._progress.finish("indexed")
        self._said.update(errors.values())
        if store.problem:
            raise store.problem
        found = {digest: errors[path].removeprefix(f"{path}: ") for digest, path in pictures.items() if path in errors}
        self._index.fail(found)
        return self._index, found

    def _loaded(self) -> Captioner:
        if self._model is None:
            from captioner.inference.captioner import load

            precision = self._index.model.split()[1] if self._index else self._how["precision"]
            self._model = load(self._checkpoint, **{**self._how, "precision": precision})
        return self._model

    def _existing(self) -> IndexFile | None:
        """The index that was used last among those for this checkpoint and these settings."""
        digest = sha256_of(self._checkpoint)
        files = [Path(self._file)] if self._file else [*index_folder().glob(f"{digest[:16]}-*.sqlite")]
        for file in sorted(filter(Path.is_file, files), key=lambda file: -file.stat().st_mtime_ns):
            index = IndexFile(file, "", self._reader, self._progress.say)
            with suppress(OutputError, OSError):  # said once something is to be encoded
                index.numbers([])
                if is_for(index.model, digest, self._how["precision"], self._how["engine"]):
                    return index
        return None


def score(products: Floats) -> Floats:
    """From products with what is wanted, and with what is not if there is that, (N, 1 or 2), to scores (N,).

    A picture loses as much as it is like what is not wanted; it gains nothing by being the opposite.
    """
    return np.asarray(products[:, 0] - np.maximum(products[:, 1:], 0).sum(1))


def best_first(scores: Floats) -> Iterator[int]:
    """The places of scores (N,), the best first. They are sorted piece by piece, since few are mostly wanted."""
    left = np.arange(len(scores))
    while len(left):
        own = scores[left]
        now = own >= np.partition(own, -_PIECE)[-_PIECE] if len(own) > _PIECE else np.ones(len(own), bool)
        yield from left[now][np.argsort(-own[now], kind="stable")].tolist()
        left = left[~now]


def check_output(output: Path | None, format: str | None) -> str:
    """The format that was asked for, or that of the output's suffix. Raises OptionError, and OutputError for a file."""
    if output and output.is_file():
        raise OutputError(f"{output}: exists already: delete it, or give another name")
    format = format or (format_of(output) if output else "text")
    if format not in FIND_FORMATS:
        raise OptionError(f"format must be one of {', '.join(FIND_FORMATS)}, not {format!r}")
    return format


def write_matches(rows: Iterable[Row], output: Path | TextIO, format: str) -> None:
    """Write pictures that were found: {"path", "score"}, and "group" of duplicates. Raises OutputError and OSError."""
    pieces = _WRITERS[format](rows)
    if not isinstance(output, Path):
        output.writelines(pieces)
        return
    with replacing(output) as file:
        file.writelines(pieces)


def _text(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        yield "\t".join([one_line(row["path"]), *(str(row[name]) for name in ("score", "group") if name in row)]) + "\n"


def _csv(rows: Iterable[Row]) -> Iterator[str]:
    yield csv_line(["path", "score", "group"])
    yield from (csv_line([quoted(row["path"]), row["score"], row.get("group", "")]) for row in rows)


def _unit(vector: Floats) -> Floats:
    length = np.linalg.norm(vector)
    return np.asarray(vector / length if length else vector, np.float32)


_WRITERS: dict[str, Callable[[Iterable[Row]], Iterator[str]]] = {
    "text": _text,
    "jsonl": jsonl,
    "csv": _csv,
    "html": lambda rows: gallery({"caption": f"Group {row['group']}" if "group" in row else "", **row} for row in rows),
}
