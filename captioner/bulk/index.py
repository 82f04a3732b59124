"""The index of pictures: what the encoder made of them, kept on disk, so that none is encoded twice.

There is one SQLite file for each checkpoint and precision, for the pictures of all folders. A picture is known by the
SHA-256 of its content, so one that was moved or copied is known already. Beside that file lies another one, with the
vectors by which pictures are found. A picture counts once its row in SQLite is committed. What a killed process wrote
beyond the last row is overwritten by the next one. Both files may be deleted at any time.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from captioner.bulk.moves import File, stamp_of
from captioner.errors import OutputError
from captioner.files import cache_folder
from captioner.inference.parallel import in_batches
from captioner.machine import available_cpus

if TYPE_CHECKING:
    from captioner.inference.reader import Reader

T = TypeVar("T")
Floats: TypeAlias = "NDArray[np.float32]"
Numbers: TypeAlias = "NDArray[np.int64]"
_VERSION = 1
_OURS = 0x63617074  # SQLite's "application id" of our files
_PATIENCE = 300.0  # seconds to wait while another process writes
_FRESH = 2_000_000_000  # nanoseconds in which a file may change again at the same time: FAT counts in 2 seconds
_BLOCK = 1024  # vectors that are multiplied at a time: few enough for the processor's cache
_OFF = 0.01  # by which the squared length of a vector may differ from 1; damage changes it by more
FEW = 256  # files of one folder that are looked up one by one, since the folder may hold very many others
NONE = -1  # in the place of the number of a picture that has none
_MANY = 1024  # records that are mended at a time
_SCHEMA = f"""
CREATE TABLE facts (model TEXT NOT NULL, vectors TEXT NOT NULL);
CREATE TABLE pictures (
    number INTEGER PRIMARY KEY, digest BLOB NOT NULL, batch INTEGER NOT NULL, features BLOB NOT NULL,
    crc INTEGER NOT NULL, UNIQUE (digest, batch)
);
CREATE TABLE files (
    folder BLOB NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL, changed INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (folder, name)
) WITHOUT ROWID;
CREATE TABLE failures (digest BLOB PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {_OURS};
PRAGMA user_version = {_VERSION}
"""


def index_folder() -> Path:
    """Where indexes are, unless a person says otherwise."""
    return cache_folder() / "index"


class IndexFile:
    """Features and vectors of pictures. Threads and processes may share it.

    `model` names all that features depend on except the picture: the checkpoint, the precision and so on. `say` takes
    a line when something was damaged. Methods raise OSError, and OutputError when the file is not an index of this
    model, cannot be written or stays locked.
    """

    def __init__(self, file: Path, model: str, reader: Reader, say: Callable[[str], object]) -> None:
        self.file, self.model, self.reader, self._say = file, model, reader, say
        self._map: tuple[object, NDArray[np.float16]] | None = None

    def known(self, paths: Iterable[str]) -> dict[str, File]:
        """Those of the files that have not changed since their content was read."""
        folders: dict[str, dict[bytes, str]] = defaultdict(dict)
        for path in paths:
            folder, name = os.path.split(path)
            folders[folder][os.fsencode(name)] = path

        def look_up(database: sqlite3.Connection) -> dict[str, File]:
            found, query = {}, "SELECT name, size, changed, digest FROM files WHERE folder = ?"
            for folder, names in folders.items():
                of = _absolute(folder)
                each = (database.execute(f"{query} AND name = ?", (of, name)) for name in names)
                records = database.execute(query, (of,)) if len(names) > FEW else chain.from_iterable(each)
                for name, size, changed, digest in records:
                    if (path := names.get(name)) is not None and stamp_of(path) == (size, changed):
                        found[path] = File(path, (size, changed), digest)
            return found

        return self._do(look_up)

    def numbers(self, digests: Sequence[bytes]) -> Numbers:
        """The numbers (N,) of the vectors of pictures, and `NONE` for those that were not encoded."""
        query = "SELECT coalesce(min(number), ?) FROM pictures WHERE digest = ?"

        def look_up(database: sqlite3.Connection) -> Numbers:
            found = (database.execute(query, (NONE, digest)).fetchone()[0] for digest in digests)
            return np.fromiter(found, np.int64, len(digests))

        return self._do(look_up)

    def features(self, digests: Sequence[bytes], batch: int) -> list[Floats | None]:
        """The features (F,) of pictures that were added with this `batch`."""
        return self._records("digest = ? AND batch = ?", [(digest, batch) for digest in digests])

    def add(self, files: Sequence[File], features: Floats, batch: int) -> None:
        """Keep the features (N, F) of pictures: of all, or of none when the process is killed.

        `batch` is the number of pictures that were encoded together, where their last digits depend on it, or else 0.
        """
        vectors = self.reader.pictures(features).astype(np.float16)

        def write(database: sqlite3.Connection) -> None:
            end = database.execute("SELECT coalesce(max(number) + 1, 0) FROM pictures").fetchone()[0]
            query = "SELECT number FROM pictures WHERE digest = ? AND batch = ?"
            placed = {}
            for file, row, vector in zip(files, features, vectors, strict=True):
                there = database.execute(query, (file.digest, batch)).fetchone()
                number = there[0] if there else end
                end += not there
                placed[number] = vector
                record = (number, file.digest, batch, *_packed(file.digest, row))
                database.execute("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", record)
            _place(self._vectors(database), placed)  # before the commit
            _remember(database, files)

        self._do(write, "BEGIN IMMEDIATE")

    def remember(self, files: Sequence[File]) -> None:
        """Keep the stamps of files, so that those that do not change are not read again."""
        self._do(lambda database: _remember(database, files), "BEGIN IMMEDIATE")

    def fail(self, reasons: Mapping[bytes, str]) -> None:
        """Keep the reasons why pictures, by their digests, cannot be read."""
        query = "INSERT OR REPLACE INTO failures VALUES (?, ?)"
        self._do(lambda database: database.executemany(query, reasons.items()), "BEGIN IMMEDIATE")

    def failures(self, digests: Iterable[bytes]) -> dict[bytes, str]:
        """The reasons why some of the pictures could not be read."""
        wanted = set(digests)

        def look_up(database: sqlite3.Connection) -> dict[bytes, str]:
            return {digest: why for digest, why in database.execute("SELECT * FROM failures") if digest in wanted}

        return self._do(look_up)

    def products(self, numbers: Numbers, queries: Floats) -> Floats:
        """The products (N, Q) of vectors with `queries` (D, Q). The numbers of the vectors are in ascending order.

        The vectors have unit length, which is their check sum: damaged ones are computed again from their features.
        """
        file = self._do(self._vectors)
        vectors = self._mapped(file)
        there = len(vectors)
        result = np.empty((len(numbers), queries.shape[1]), np.float32)
        missing = int(np.searchsorted(numbers, there))  # from this place on

        def multiply(start: int) -> Numbers:
            some = numbers[start : min(start + _BLOCK, missing)]
            dense = some[-1] - some[0] == len(some) - 1
            block = as_float32(vectors[some[0] : some[-1] + 1] if dense else vectors[some])
            np.matmul(block, queries, out=result[start : start + len(some)])
            return start + np.flatnonzero(~(np.abs(np.einsum("nd,nd->n", block, block) - 1) < _OFF))

        with ThreadPoolExecutor(available_cpus()) as pool:
            damaged = [*pool.map(multiply, range(0, missing, _BLOCK)), np.arange(missing, len(numbers))]
        for places in in_batches(np.concatenate(damaged).tolist(), _MANY):
            result[places] = self._mended(numbers[places].tolist(), file) @ queries
        if lost := sum(map(len, damaged)):
            self._say(f"captioner: note: {file}: {lost:,} damaged vectors were computed again")
        return result

    def standardised(self, numbers: Numbers) -> Floats:
        """The features (N, F) of pictures, as the matcher sees them, scaled to unit length; zeros if damaged."""
        features = self._numbered(numbers.tolist())
        return self.reader.alike(np.stack([self.reader.mean if row is None else row for row in features]))

    def _numbered(self, numbers: Iterable[int]) -> list[Floats | None]:
        return self._records("number = ?", [(number,) for number in numbers])

    def _records(self, where: str, wanted: Sequence[tuple[object, ...]]) -> list[Floats | None]:
        """The features (F,) of pictures; None for those that are not there or are damaged."""
        query = f"SELECT digest, features, crc FROM pictures WHERE {where}"
        rows = self._do(lambda database: [database.execute(query, values).fetchone() for values in wanted])
        return [_unpacked(*row) if row else None for row in rows]

    def _mended(self, numbers: list[int], file: Path) -> Floats:
        """Vectors (N, D), computed again. Pictures whose features are damaged, too, get zeros, and are forgotten."""
        found = zip(numbers, self._numbered(numbers), strict=True)
        features = {number: row for number, row in found if row is not None}
        vectors = dict.fromkeys(numbers, np.zeros(self.reader.size, np.float32))
        if features:
            vectors |= dict(zip(features, self.reader.pictures(np.stack([*features.values()])), strict=True))

        def write(database: sqlite3.Connection) -> None:
            _place(file, {number: vectors[number].astype(np.float16) for number in features})
            gone = ((number,) for number in numbers if number not in features)
            database.executemany("DELETE FROM pictures WHERE number = ?", gone)

        with suppress(OutputError, OSError):  # where nothing can be written, they are computed each time
            self._do(write, "BEGIN IMMEDIATE")
        return np.stack([*vectors.values()])

    def _mapped(self, file: Path) -> NDArray[np.float16]:
        """The vectors (N, D) in a file. It stays mapped, since to map it anew takes as long as to search it."""
        status = file.stat() if file.exists() else None
        there = status.st_size // (2 * self.reader.size) if status else 0
        if not status or not there:
            return np.empty((0, self.reader.size), np.float16)
        key = (file, status.st_dev, status.st_ino, there)
        if not self._map or self._map[0] != key:
            self._map = key, np.memmap(file, np.float16, "r", shape=(there, self.reader.size))
        return self._map[1]

    def _vectors(self, database: sqlite3.Connection) -> Path:
        return self.file.with_name(database.execute("SELECT vectors FROM facts").fetchone()[0])

    def _do(self, work: Callable[[sqlite3.Connection], T], begin: str = "BEGIN") -> T:
        """The result of `work` in a transaction. A damaged file is first made anew, with what can still be read."""
        try:
            try:
                return self._once(work, begin)
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:  # the others are no damage
                    raise
            self._renew()
            return self._once(work, begin)
        except sqlite3.Error as error:
            raise OutputError(f"{self.file}: the index of pictures cannot be used ({error})") from error

    def _once(self, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
        if not self.file.parent.exists():
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # it tells which pictures a person has
        with closing(sqlite3.connect(self.file, timeout=_PATIENCE, isolation_level=None)) as database:
            database.execute("PRAGMA page_size = 16384")  # several records fit in a page
            # Waiting for the disk after every batch would be slow. What a power failure damages is noticed and mended.
            database.execute("PRAGMA synchronous = OFF")
            if database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                self._begin(database)
            self.model = self.model or database.execute("SELECT model FROM facts").fetchone()[0]
            if database.execute("SELECT model FROM facts").fetchone()[0] != self.model:
                raise OutputError(f"{self.file}: an index for another checkpoint or precision: give another file")
            database.execute(begin)
            with database:  # which commits or rolls back
                return work(database)

    def _begin(self, database: sqlite3.Connection) -> None:
        """Make the tables in an empty file."""
        database.execute("BEGIN IMMEDIATE")
        with database:
            if (version := database.execute("PRAGMA user_version").fetchone()[0]) == _VERSION:
                return  # another process was faster
            if version or database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise OutputError(f"{self.file}: of another program, or of another version of captioner: delete it")
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            # A name of its own for each, so that nobody writes into the vectors of a file that was made anew.
            name = f"{self.file.stem}-{secrets.token_hex(4)}.vectors"
            database.execute("INSERT INTO facts VALUES (?, ?)", (self.model, name))

    def _renew(self) -> None:
        """Make the file anew, with the records that can still be read."""
        with self.file.open("rb") as file:
            head = file.read(100)
        if not self.model:
            raise OutputError(f"{self.file}: damaged")
        if self.file.parent != index_folder() and head[68:72] != _OURS.to_bytes(4, "big"):
            raise OutputError(f"{self.file}: not an index of captioner: give another file")
        fresh, kept = IndexFile(self.file.with_suffix(".new"), self.model, self.reader, self._say), 0
        fresh.file.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.file)) as damaged:
            for (batch, _), group in groupby(_readable(damaged), lambda record: (record[1], record[2].shape)):
                for some in in_batches(group, _MANY):
                    files = [File("", None, digest) for digest, _, _ in some]
                    fresh.add(files, np.stack([features for _, _, features in some]), batch)
                    kept += len(some)
            with suppress(sqlite3.Error, OSError, TypeError):
                self._vectors(damaged).unlink()
        fresh.numbers([])  # so that there is a file, also if nothing was kept
        Path(f"{self.file}-journal").unlink(missing_ok=True)  # of the damaged file
        fresh.file.replace(self.file)
        self._say(f"captioner: note: {self.file} was damaged: made anew with {kept:,} pictures that could be read")


def as_float32(halves: NDArray[np.float16]) -> Floats:
    """Numbers in half precision as single precision, several times faster than NumPy's own conversion.

    The bits of a number are moved to their places. Its exponent is then 112 too small, which a product mends.
    """
    bits = halves.view(np.int16).astype(np.int32)
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, -0x70000001, out=bits)
    floats = bits.view(np.float32)
    return np.asarray(np.multiply(floats, np.float32(2.0**112), out=floats))


def _absolute(folder: str) -> bytes:
    return os.fsencode(Path(folder).absolute())


def _remember(database: sqlite3.Connection, files: Iterable[File]) -> None:
    now = time.time_ns()
    for path, stamp, digest in files:
        if stamp and now - stamp[1] > _FRESH:
            folder, name = os.path.split(path)
            record = (_absolute(folder), os.fsencode(name), *stamp, digest)
            database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", record)


def _place(file: Path, vectors: Mapping[int, NDArray[np.float16]]) -> None:
    """Write vectors to their places in a file."""
    file.touch(0o600)
    with file.open("r+b") as opened:
        for number, vector in vectors.items():
            opened.seek(number * vector.nbytes)
            opened.write(vector.tobytes())


def _packed(digest: bytes, features: Floats) -> tuple[bytes, int]:
    """Features as bytes, with a check sum. Numbers that are bfloat16 take 2 bytes each, others 4."""
    bits = features.astype("<f4").view("<u4")
    data = b"\4" + bits.tobytes() if (bits & 0xFFFF).any() else b"\2" + (bits >> 16).astype("<u2").tobytes()
    return data, zlib.crc32(data, zlib.crc32(digest))


def _unpacked(digest: bytes, data: bytes, crc: int) -> Floats | None:
    """What was packed; None if it is damaged."""
    if crc != zlib.crc32(data, zlib.crc32(digest)):
        return None
    bits = np.frombuffer(data[1:], "<u4") if data[0] == 4 else np.frombuffer(data[1:], "<u2").astype("<u4") << 16
    return bits.view("<f4").astype(np.float32)


def _readable(damaged: sqlite3.Connection) -> Iterator[tuple[bytes, int, Floats]]:
    """Digests, batches and features, as far as they can be read."""
    with suppress(sqlite3.Error):
        for digest, batch, data, crc in damaged.execute("SELECT digest, batch, features, crc FROM pictures"):
            if (features := _unpacked(digest, data, crc)) is not None:
                yield digest, batch, features
