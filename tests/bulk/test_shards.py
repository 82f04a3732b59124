"""Folders of shards: whole, complete, and readable by others."""

import json
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.bulk import shards
from captioner.bulk.shards import Shards
from captioner.errors import OutputError
from captioner.inference.results import Caption, FileResult, Row, row_of

CAPTION = Caption("Ein Hund 🐕", ("ein", "hund"), (0.5, 0.25), None, -2.0)
NAMES = ["a.jpg", "caf\u00e9.jpg", "odd\udcff.jpg"]


@pytest.fixture
def rows() -> list[Row]:
    good = [row_of(FileResult(name, CAPTION)) for name in NAMES]
    many = row_of(FileResult("b.jpg", Caption("x", ("x",), (0.5,), 0.5, -1.0, (CAPTION,))))
    return [*good, many, row_of(FileResult("bad.jpg", None, "bad.jpg: the file is empty"))]


@pytest.mark.parametrize("place", ["{}/new/folder", "file://{}/new/folder"])
def test_parquet_has_one_schema_and_every_field(rows: list[Row], tmp_path: Path, place: str) -> None:
    Shards(place.format(tmp_path), "parquet").write(rows)
    folder = tmp_path / "new" / "folder"
    found = pq.read_table(folder).to_pylist()
    assert [row["path"] for row in found] == [*NAMES[:2], "odd\\udcff.jpg", "b.jpg", "bad.jpg"]
    assert {key: found[0][key] for key in rows[0]} == rows[0]
    others = [{name: value for name, value in each.items() if value is not None} for each in found[3]["alternatives"]]
    assert others == [{k: v for k, v in each.items() if v is not None} for each in rows[3]["alternatives"]]
    assert [row["error"] for row in found] == [None, None, None, None, "bad.jpg: the file is empty"]
    assert pq.read_schema(folder / "part-00000.parquet").equals(shards.SCHEMA)
    assert json.loads((folder / "_SUCCESS").read_text()) == {"rows": 5, "failed": 1, "files": 1}


def test_parquet_with_vectors_that_errors_lack(rows: list[Row], tmp_path: Path) -> None:
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2) / 3
    given = [{**row, "vector": vector} for row, vector in zip(rows, vectors, strict=False)]
    Shards(str(tmp_path / "out"), "parquet", 2).write([*given, rows[-1]])
    table = pq.read_table(tmp_path / "out")
    assert table.schema.equals(shards.SCHEMA.append(pa.field("vector", pa.list_(pa.float32(), 2))))
    assert table["vector"].to_pylist() == [*vectors.tolist(), None]


def test_jsonl_at_an_address_in_files_of_so_many_rows(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROWS", 2)
    Shards("memory://out", "jsonl").write(iter(rows))
    store = fsspec.filesystem("memory")
    names = [f"/out/part-0000{n}.jsonl" for n in range(3)]
    assert sorted(store.find("/out")) == ["/out/_SUCCESS", *names]
    assert [json.loads(line) for name in names for line in store.cat_file(name).splitlines()] == rows
    with pytest.raises(OutputError, match="memory://out: is not empty"):
        Shards("memory://out", "jsonl")


def test_a_run_that_fails_leaves_no_mark_of_success_and_is_not_written_over(rows: list[Row], tmp_path: Path) -> None:
    def failing() -> object:
        yield from rows
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Shards(str(tmp_path / "out"), "jsonl").write(failing())
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="is not empty"):
        Shards(str(tmp_path / "out"), "jsonl")
