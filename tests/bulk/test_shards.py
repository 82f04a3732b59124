"""Folders of shards: whole, complete, and readable by others."""

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from itertools import count, takewhile
from pathlib import Path
from types import FrameType
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.bulk import shards
from captioner.bulk.earlier import as_text, key_of
from captioner.bulk.shards import Shards
from captioner.bulk.sources import filesystem
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
    Shards(place.format(tmp_path), "parquet").write([rows])
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
    Shards(str(tmp_path / "out"), "parquet", 2).write([[*given, rows[-1]]])
    table = pq.read_table(tmp_path / "out")
    assert table.schema.equals(shards.SCHEMA.append(pa.field("vector", pa.list_(pa.float32(), 2))))
    assert table["vector"].to_pylist() == [*vectors.tolist(), None]


def test_jsonl_at_an_address_in_files_of_so_many_rows(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROWS", 2)
    Shards("memory://out", "jsonl").write(iter([rows[:2], rows[2:3], rows[3:]]))
    store = fsspec.filesystem("memory")
    names = [f"/out/part-0000{n}.jsonl" for n in range(2)]
    assert sorted(store.find("/out")) == ["/out/_SUCCESS", "/out/_settings.json", *names]
    assert [len(store.cat_file(name).splitlines()) for name in names] == [2, 3], "a unit is never cut"
    assert [json.loads(line) for name in names for line in store.cat_file(name).splitlines()] == rows
    store.rm("/out", recursive=True)


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_a_run_that_fails_leaves_what_it_has_and_no_mark_of_success(
    rows: list[Row], tmp_path: Path, format: str
) -> None:
    def failing() -> Iterator[list[Row]]:
        yield rows[:2]
        yield rows[2:]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Shards(str(tmp_path / "out"), format).write(failing())
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    earlier = Shards(str(tmp_path / "out"), format).earlier()
    assert {row["path"] for row in rows if earlier.take(row["path"])} == {*NAMES, "b.jpg"}


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.parametrize("place", ["{}/out", "memory://out"])
def test_a_later_run_adds_parts_and_replaces_errors(rows: list[Row], tmp_path: Path, format: str, place: str) -> None:
    folder = place.format(tmp_path)
    files, root = filesystem(folder)
    torn = row_of(FileResult("torn.tar", None, "torn.tar: is cut off"))
    still = row_of(FileResult("gone.jpg", None, "gone.jpg: no such file"))
    Shards(folder, format).write([[*rows, torn, still]])
    before = files.cat_file(f"{root}/part-00000.{format}")

    again = Shards(folder, format)
    assert again.earlier(["torn.tar"]).members("torn.tar") == set()
    good = row_of(FileResult("bad.jpg", CAPTION))
    again.write([[good], [row_of(FileResult("torn.tar/0.jpg", CAPTION))]])
    assert json.loads(files.cat_file(f"{root}/_SUCCESS")) == {"rows": 7, "failed": 1, "files": 2}
    first, second = (read(files.cat_file(f"{root}/part-0000{number}.{format}"), format) for number in range(2))
    assert [row["path"] for row in first] == [as_text(row["path"]) for row in rows[:-1]] + ["gone.jpg"]
    assert first == [row for row in read(before, format) if row["path"] not in ("bad.jpg", "torn.tar")]
    assert [(row["path"], row["caption"]) for row in second] == [
        ("bad.jpg", CAPTION.text),
        ("torn.tar/0.jpg", CAPTION.text),
    ]

    nothing = Shards(folder, format)
    nothing.earlier()
    nothing.write([])
    assert json.loads(files.cat_file(f"{root}/_SUCCESS")) == {"rows": 7, "failed": 1, "files": 2}
    files.rm(root, recursive=True)


def test_a_part_of_errors_alone_goes_when_all_are_mended(tmp_path: Path) -> None:
    Shards(str(tmp_path / "out"), "parquet").write([[row_of(FileResult("a.jpg", None, "a.jpg: no such file"))]])
    again = Shards(str(tmp_path / "out"), "parquet")
    again.earlier()
    again.write([[row_of(FileResult("a.jpg", CAPTION))]])
    assert sorted(file.name for file in tmp_path.glob("out/part*")) == ["part-00001.parquet"]
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text()) == {"rows": 1, "failed": 0, "files": 1}


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_of_a_killed_run_only_the_last_part_may_be_torn(rows: list[Row], tmp_path: Path, format: str) -> None:
    folder = tmp_path / "out"
    for names in (rows[:2], rows[2:]):
        shards_there = Shards(str(folder), format)
        shards_there.earlier()
        shards_there.write([names])
    last, success = folder / f"part-00001.{format}", folder / "_SUCCESS"
    last.write_bytes(last.read_bytes()[:-9])
    with pytest.raises(OutputError, match=rf"part-00001.{format}: is damaged"):
        Shards(str(folder), format).earlier()
    assert last.exists(), "of a complete run, none is deleted"
    success.unlink()
    earlier = Shards(str(folder), format).earlier()
    assert not last.exists()
    assert {row["path"] for row in rows if earlier.take(row["path"])} == set(NAMES[:2])
    (folder / f"part-00000.{format}").write_bytes(b"{}\n")
    last.touch()
    with pytest.raises(OutputError, match=rf"part-00000.{format}: is damaged"):
        Shards(str(folder), format).earlier()


def test_another_run_in_the_same_folder_is_not_written_over(rows: list[Row], tmp_path: Path) -> None:
    one, other = (Shards(str(tmp_path / "out"), "jsonl") for _ in range(2))
    one.write([rows])
    with pytest.raises(OutputError, match=r"part-00000.jsonl: another run wrote it"):
        other.write([rows[:1]])
    assert len((tmp_path / "out" / "part-00000.jsonl").read_text().splitlines()) == len(rows)


@pytest.mark.parametrize("place", ["{}/out", "memory://race"])
def test_a_part_that_another_run_puts_while_this_one_makes_its_own_is_not_written_over(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = place.format(tmp_path)
    one, other = (Shards(folder, "jsonl") for _ in range(2))
    render = shards.jsonl

    def slow(slowly: list[Row]) -> Iterator[str]:
        monkeypatch.setattr(shards, "jsonl", render)
        other.write([rows])
        yield from render(slowly)

    monkeypatch.setattr(shards, "jsonl", slow)
    with pytest.raises(OutputError, match=r"part-00000.jsonl: another run wrote it"):
        one.write([rows[:1]])
    files, root = filesystem(folder)
    assert len(files.cat_file(f"{root}/part-00000.jsonl").splitlines()) == len(rows)
    files.rm(root, recursive=True)


def ctrl_c(number: int, write: Callable[[], None], code: set[str]) -> bool:
    """Raise KeyboardInterrupt before the line that is the next after so many in these functions of `shards`.

    Returns whether there was one.
    """
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != shards.__file__ or frame.f_code.co_name not in code:
            return None
        lines += event == "line"
        if lines > number:
            raise KeyboardInterrupt  # which also ends the tracing
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        write()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_ctrl_c_at_any_line_of_writing_a_part_writes_each_row_once(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "ROWS", 2)

    def lines_of(number: int) -> list[Row] | None:
        folder = tmp_path / str(number)
        writing = Shards(str(folder), "jsonl")
        if not ctrl_c(number, lambda: writing.write(iter([rows[:2]])), {"write", "_add", "_put"}):
            return None
        return [json.loads(line) for part in folder.glob("part-*") for line in part.read_text().splitlines()]

    found = list(takewhile(lambda lines: lines is not None, map(lines_of, count())))
    first = next(number for number, lines in enumerate(found) if lines)  # before it, the rows were not yet taken
    assert found == [*[[]] * first, *[rows[:2]] * (len(found) - first)]
    assert len(found) - first > 10


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_texts_of_others_that_are_not_valid_cost_no_row(rows: list[Row], tmp_path: Path, format: str) -> None:
    odd = row_of(FileResult("bad\udcff.jpg", None, "bad\udcff.jpg: not a picture"))
    given = {"path": "given.jpg", "caption": "half \ud83d", "given": True}
    Shards(str(tmp_path / "out"), format).write([rows, [odd, given]])
    found = read((tmp_path / "out" / f"part-00000.{format}").read_bytes(), format)
    assert len(found) == len(rows) + 2
    assert as_text(found[-2]["error"]) == "bad\\udcff.jpg: not a picture"
    assert as_text(found[-1]["caption"]) == "half \\ud83d"


def test_what_a_kill_left_of_the_first_file_is_passed_over(rows: list[Row], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".captioner-0123.tmp").touch()
    Shards(str(tmp_path / "out"), "jsonl").write([rows])
    assert len(Shards(str(tmp_path / "out"), "jsonl").earlier().pictures) == 4


def test_of_a_part_in_parquet_only_two_columns_are_fetched(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    Shards("memory://columns", "parquet").write([rows])
    store = fsspec.filesystem("memory")
    again = Shards("memory://columns", "parquet")
    monkeypatch.setattr(type(store), "cat_file", lambda *_, **__: pytest.fail("it was fetched whole"))
    assert len(again.earlier().pictures) == 4
    store.rm("/columns", recursive=True)


def test_errors_of_what_was_asked_for_again_go_though_the_new_rows_have_other_names(tmp_path: Path) -> None:
    names = ["t.parquet#0", "t.parquet#1", "u.parquet#0"]
    Shards(str(tmp_path / "out"), "jsonl").write([[row_of(FileResult(name, None, f"{name}: torn")) for name in names]])
    again = Shards(str(tmp_path / "out"), "jsonl")
    earlier = again.earlier()
    assert not any(map(earlier.take, names[:2]))
    again.write([[row_of(FileResult(f"{n}.jpg", CAPTION)) for n in range(2)]])
    left = Shards(str(tmp_path / "out"), "jsonl").earlier()
    assert left.failed == {key_of(names[2])}
    assert len(left.pictures) == 2


def test_other_settings_are_refused_by_name(rows: list[Row], tmp_path: Path) -> None:
    Shards(str(tmp_path / "out"), "jsonl", settings={"beam_size": 3}).write([rows])
    with pytest.raises(OutputError, match="out: the earlier run had beam_size 3, not 5: give the same settings"):
        Shards(str(tmp_path / "out"), "jsonl", settings={"beam_size": 5})
    with pytest.raises(OutputError, match="the earlier run had format 'jsonl', not 'parquet'"):
        Shards(str(tmp_path / "out"), "parquet", settings={"beam_size": 3})
    (tmp_path / "out" / "_settings.json").write_text("[1, 2")
    with pytest.raises(OutputError, match=r"_settings.json: is damaged"):
        Shards(str(tmp_path / "out"), "jsonl", settings={"beam_size": 3})


@pytest.mark.parametrize("name", ["notes.txt", "part-00000.jsonl"])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(OutputError, match="is not empty"):
        Shards(str(tmp_path), "jsonl")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="is not empty"):
        Shards(str(tmp_path / "out"), "jsonl")


def test_scaling_md_lists_every_column_with_its_type() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE))
    word, others = (
        "list of struct(word string, probability double)",
        "list of struct of the columns from caption to unsure",
    )
    names = {"words": word, "tags": word, "alternatives": others}
    assert listed == {
        **{field.name: names.get(field.name, str(field.type)) for field in shards.SCHEMA},
        "vector": "list of float, of fixed size",
    }


def read(data: bytes, format: str) -> list[Row]:
    if format == "parquet":
        return list(pq.read_table(io.BytesIO(data)).to_pylist())
    return [{**row, "path": as_text(row["path"])} for row in map(json.loads, data.splitlines())]
