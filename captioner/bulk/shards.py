"""Rows as a folder of parquet or jsonl files, on this machine or at an address."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.bulk.formats import jsonl
from captioner.bulk.sources import filesystem
from captioner.errors import OutputError
from captioner.inference.parallel import in_batches
from captioner.inference.results import Row

ROWS = 10_000  # in a file, and at most in memory

_WORD = pa.struct({"word": pa.string(), "probability": pa.float64()})
_CAPTION = {
    **{"caption": pa.string(), "logprob": pa.float64(), "finished": pa.bool_()},
    **{"words": pa.list_(_WORD), "end_probability": pa.float64()},
    **{"confidence": pa.float64(), "familiar": pa.float64(), "unsure": pa.string()},
}
_OTHERS = pa.list_(pa.struct(_CAPTION))
SCHEMA = pa.schema(
    {"path": pa.string(), **_CAPTION, "tags": pa.list_(_WORD), "alternatives": _OTHERS, "error": pa.string()}
)


class Shards:
    """A folder of part-00000.parquet and so on. `_SUCCESS` is written last: without it, the folder is incomplete.

    Parquet has a column of the rows' vectors if their size is given: numbers in single precision, a list of fixed size.
    Raises OutputError when the folder is not empty.
    """

    def __init__(self, folder: str, format: str, vector_size: int = 0) -> None:
        self._files, self._root = filesystem(folder)
        self._format = format
        self._schema = SCHEMA
        if vector_size:
            self._schema = SCHEMA.append(pa.field("vector", pa.list_(pa.float32(), vector_size)))
        if self._files.exists(self._root) and (self._files.isfile(self._root) or self._files.ls(self._root)):
            raise OutputError(f"{folder}: is not empty: give a new folder, or delete what an earlier run left there")

    def write(self, rows: Iterable[Row]) -> None:
        """Write all rows, and then _SUCCESS."""
        self._files.makedirs(self._root, exist_ok=True)
        total = failed = files = 0
        for part in in_batches(rows, ROWS):
            with self._files.open(f"{self._root}/part-{files:05}.{self._format}", "wb") as file:
                if self._format == "parquet":
                    pq.write_table(pa.Table.from_pylist([_as_text(row) for row in part], self._schema), file)
                else:
                    file.writelines(line.encode() for line in jsonl(part))
            files, total, failed = files + 1, total + len(part), failed + sum("error" in row for row in part)
        with self._files.open(f"{self._root}/_SUCCESS", "wb") as file:
            file.write(json.dumps({"rows": total, "failed": failed, "files": files}).encode() + b"\n")


def _as_text(row: Row) -> Row:
    """A row with a file name that parquet can hold, even if it is not valid text."""
    return {
        key: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for key, value in row.items()
    }
