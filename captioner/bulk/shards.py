"""Rows as a folder of parquet or jsonl files, on this machine or at an address."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import compress
from pathlib import Path, PurePath
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from captioner.bulk.earlier import Earlier, as_text, key_of
from captioner.bulk.formats import jsonl
from captioner.bulk.journal import check_same
from captioner.bulk.outputs import check_folder
from captioner.bulk.sources import filesystem
from captioner.errors import OutputError, one_line
from captioner.files import TEMPORARY, replacing
from captioner.inference.results import Row

T = TypeVar("T")
ROWS = 10_000  # in a file, and in memory: at least so many, and then to the end of a unit
SUCCESS, SETTINGS = "_SUCCESS", "_settings.json"  # programs that read a folder of parquet pass over such names

_WORD = pa.struct({"word": pa.string(), "probability": pa.float64()})
_CAPTION = {
    **{"caption": pa.string(), "logprob": pa.float64(), "finished": pa.bool_()},
    **{"words": pa.list_(_WORD), "end_probability": pa.float64()},
    **{"confidence": pa.float64(), "familiar": pa.float64(), "unsure": pa.string()},
}
_OTHERS = pa.list_(pa.struct(_CAPTION))
SCHEMA = pa.schema(
    {
        **{"path": pa.string(), **_CAPTION, "tags": pa.list_(_WORD), "alternatives": _OTHERS},
        **{"digest": pa.string(), "given": pa.bool_(), "error": pa.string()},
    }
)


class Shards:
    """A folder of part-00000.parquet and so on. `_SUCCESS` is written last: without it, the folder is incomplete.

    Each part is written at once and holds the rows of whole units of work. A later run with the same `settings` adds
    parts. Parquet has a column of the rows' vectors if their size is given: numbers in single precision, a list of
    fixed size. Raises OutputError when the folder has something else in it, or the settings are other ones.
    """

    def __init__(
        self, folder: str, format: str, vector_size: int = 0, settings: Mapping[str, Any] | None = None
    ) -> None:
        self._files, self._root = filesystem(folder)
        self._format, self._schema = format, SCHEMA
        if vector_size:
            self._schema = SCHEMA.append(pa.field("vector", pa.list_(pa.float32(), vector_size)))
        self._settings = {"shards": 1, "format": format, **(settings or {})}
        there = self._names()
        if there is None or (there and SETTINGS not in there):
            raise OutputError(f"{folder}: is not empty: give a new folder, or one that an earlier run made")
        if there:
            theirs = self._parsed(SETTINGS, lambda file: dict(json.load(file)))
            remedy = "give the same settings to add to its shards, or another folder"
            check_same(theirs, self._settings, f"{folder}: the earlier run", remedy)
        self._parts = {name: (0, set[str]()) for name in sorted(there) if _number(name, format) is not None}
        self._earlier = Earlier()

    def earlier(self, tars: Iterable[str] = ()) -> Earlier:
        """The pictures that have rows, which `write` must know; `tars` are given again.

        Raises OutputError for a part that cannot be read, unless it is the last one of a run that was killed.
        """
        self._earlier = Earlier(tars)
        for part in list(self._parts):
            try:
                rows = self._parsed(part, self._rows)
            except OutputError:
                if part != max(self._parts) or SUCCESS in (self._names() or ()):
                    raise
                self._files.rm_file(self._path(part))
                del self._parts[part]
                continue
            for name, failed in rows:
                self._earlier.add(name, failed)
            self._parts[part] = len(rows), {key_of(name) for name, failed in rows if failed}
        return self._earlier

    def write(self, units: Iterable[list[Row]]) -> None:
        """Write the rows of all units, and then _SUCCESS. Stopped by an error, it first writes those that it has.

        Rows that told an error give way to new rows of the same picture, and go if what they name was asked for again.
        """
        self._files.makedirs(self._root, exist_ok=True)
        if isinstance(self._files, LocalFileSystem):
            check_folder(Path(self._root), Path(self._root))
        if SUCCESS in (there := self._names() or set()):
            self._files.rm_file(self._path(SUCCESS))
        if SETTINGS not in there:
            self._put(SETTINGS, json.dumps(self._settings).encode() + b"\n")
        before, rows = list(self._parts), list[Row]()
        gone = self._earlier.again | (self._earlier.failed & self._earlier.pictures.keys())
        try:
            for unit in units:
                rows += unit
                if self._earlier.failed:
                    gone.update(key_of(row["path"]) for row in unit)
                if len(rows) >= ROWS:
                    self._add(rows)
        finally:
            if rows:
                self._add(rows)
        for part in before:
            if failed := self._parts[part][1] & gone:
                self._remove(part, failed)
        total = sum(rows for rows, _ in self._parts.values())
        failures = sum(len(failed) for _, failed in self._parts.values())
        facts = {"rows": total, "failed": failures, "files": len(self._parts)}
        self._put(SUCCESS, json.dumps(facts).encode() + b"\n")

    def _names(self) -> set[str] | None:
        """The names in the folder, without those of files that a killed run began; None where it is a file."""
        if self._files.isfile(self._root):
            return None
        there = self._files.exists(self._root)
        names = (PurePath(path).name for path in self._files.ls(self._root, detail=False)) if there else ()
        return {name for name in names if not name.startswith(TEMPORARY)}

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _parsed(self, name: str, parse: Callable[[IO[bytes]], T]) -> T:
        """What is in a file. Raises OutputError when it is damaged."""
        try:
            with self._files.open(self._path(name)) as file:
                return parse(file)
        except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
            reason = f"is damaged ({one_line(error)}): put it back as it was, or give a new folder"
            raise OutputError(f"{self._path(name)}: {reason}") from error

    def _rows(self, file: IO[bytes]) -> list[tuple[str, bool]]:
        """For each row of a part the name of its picture, and whether it tells an error."""
        if self._format == "parquet":
            table = pq.read_table(file, columns=["path", "error"])
            return list(zip(table["path"].to_pylist(), table["error"].is_valid().to_pylist(), strict=True))
        data = file.read()
        if not data.endswith(b"\n"):
            raise ValueError("it is cut off")
        rows = map(json.loads, data.splitlines())
        return [(row["path"], row.get("error") is not None) for row in rows]

    def _add(self, rows: list[Row]) -> None:
        """Move rows to another part. After Ctrl-C, wherever it came, this may be done again with what is left."""
        numbers = [_number(part, self._format) or 0 for part in self._parts]
        part = f"part-{max(numbers, default=-1) + 1:05}.{self._format}"
        if self._format == "parquet":
            # Names and captions of other people need not be valid texts, which parquet cannot hold.
            valid = [{key: as_text(it) if isinstance(it, str) else it for key, it in row.items()} for row in rows]
            data = _parquet(pa.Table.from_pylist(valid, self._schema))
        else:
            data = "".join(jsonl(rows)).encode()
        facts = len(rows), {key_of(row["path"]) for row in rows if "error" in row}
        try:
            self._put(part, data, "xb")
        except FileExistsError as error:
            if self._files.cat_file(self._path(part)) != data:  # as it is when Ctrl-C came right after writing
                reason = "another run wrote it meanwhile: let only one write into a folder"
                raise OutputError(f"{self._path(part)}: {reason}") from error
        rows.clear()
        self._parts[part] = facts

    def _remove(self, part: str, failed: set[str]) -> None:
        """Take rows that tell an error out of a part."""
        data = self._files.cat_file(self._path(part))
        keep = [not (error and key_of(name) in failed) for name, error in self._rows(io.BytesIO(data))]
        if not any(keep):
            self._files.rm_file(self._path(part))
            del self._parts[part]
            return
        if self._format == "parquet":
            data = _parquet(pq.read_table(io.BytesIO(data)).filter(pa.array(keep)))
        else:
            data = b"".join(compress(data.splitlines(keepends=True), keep))
        self._put(part, data)
        self._parts[part] = sum(keep), self._parts[part][1] - failed

    def _put(self, name: str, data: bytes, mode: str = "wb") -> None:
        """Write a file as a whole: neither a kill nor a full disk leaves half of it.

        Raises FileExistsError if there is such a file and the mode is xb.
        """
        if not isinstance(self._files, LocalFileSystem):
            if "x" in mode and self._files.exists(self._path(name)):
                raise FileExistsError(name)
            self._files.pipe_file(self._path(name), data)  # which stores of objects show when it is complete
            return
        with replacing(Path(self._path(name)), mode) as file:
            file.write(data)


def _number(name: str, format: str) -> int | None:
    """The number of a part by its name."""
    found = re.fullmatch(rf"part-(\d+)\.{format}", name)
    return int(found[1]) if found else None


def _parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()
