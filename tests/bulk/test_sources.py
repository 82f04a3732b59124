"""Pictures at addresses, in tar shards and in parquet files."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from captioner.bulk.sources import NamedPicture, find_sources, pictures, units
from captioner.errors import ImageError, InputError


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """An object store in memory."""
    store = fsspec.filesystem("memory")
    for path in ("a.jpg", "b.png", "notes.txt", ".hidden.jpg", "sub/c.jpg", "shard-0.tar", "q?x=1.jpg"):
        store.pipe(f"/photos/{path}", path.encode())
    yield store
    store.rm("/photos", recursive=True)


def all_of(*sources: str, batch_size: int = 2) -> list[NamedPicture]:
    return [found for unit in units(sources, batch_size) for found in pictures(unit, batch_size)]


def errors_of(found: list[NamedPicture]) -> list[str]:
    return [str(source) for _, source in found if isinstance(source, ImageError)]


def write_tar(path: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


def write_parquet(path: Path, columns: dict[str, Any], rows_a_group: int = 2) -> str:
    pq.write_table(pa.table(columns), path, row_group_size=rows_a_group)
    return str(path)


@pytest.mark.parametrize(
    ("argument", "recursive", "found"),
    [
        ("memory://photos/a.jpg", False, ["memory://photos/a.jpg"]),
        ("memory://photos", False, ["memory:///photos/a.jpg", "memory:///photos/b.png", "memory:///photos/q?x=1.jpg"]),
        (
            "memory://photos/",
            True,
            [f"memory:///photos/{name}" for name in ("a.jpg", "b.png", "q?x=1.jpg", "sub/c.jpg")],
        ),
        ("memory://photos/shard-*", False, ["memory:///photos/shard-0.tar"]),
        ("https://host/picture?id=3", False, ["https://host/picture?id=3"]),
    ],
)
def test_addresses_of_files_folders_and_patterns(
    store: fsspec.AbstractFileSystem, argument: str, recursive: bool, found: list[str]
) -> None:
    assert find_sources([argument], recursive) == found


def test_what_lies_at_addresses_is_fetched_and_what_does_not_is_an_error_of_its_own(
    store: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    (tmp_path / "here.jpg").write_bytes(b"here")
    there = [f"memory://photos/{name}" for name in ("a.jpg", "missing.jpg", "q?x=1.jpg")]
    sources = [*there, "here.jpg", f"file://{tmp_path}/here.jpg", "nowhere://x.jpg"]
    found = find_sources(["-"], stdin=[f"{source}\n" for source in sources])
    result = all_of(*found, batch_size=4)
    assert [name for name, _ in result] == sources
    contents = [source for _, source in result if not isinstance(source, ImageError)]
    assert contents == [b"a.jpg", b"q?x=1.jpg", "here.jpg", str(tmp_path / "here.jpg")]
    missing, unknown = errors_of(result)
    assert missing == "memory://photos/missing.jpg: no such file"
    assert unknown.startswith("nowhere://x.jpg: cannot be opened (Protocol not known")


def test_pyarrow_reads_s3_where_s3fs_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def url_to_fs(address: str) -> None:
        raise ImportError("install s3fs")

    def from_uri(address: str) -> tuple[pa.fs.FileSystem, str]:
        if address == "s3://none":
            raise OSError("no such bucket")
        return pa.fs.SubTreeFileSystem(str(tmp_path), pa.fs.LocalFileSystem()), "bucket"

    monkeypatch.setattr("captioner.bulk.sources.url_to_fs", url_to_fs)
    monkeypatch.setattr("captioner.bulk.sources.fs.FileSystem", SimpleNamespace(from_uri=from_uri))
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "a.jpg").write_bytes(b"a")
    assert all_of("s3://bucket/a.jpg") == [("s3://bucket/a.jpg", b"a")]
    assert errors_of(all_of("s3://none/a.jpg", "ftp://none/a.jpg")) == [
        "s3://none/a.jpg: cannot be opened (no such bucket)",
        "ftp://none/a.jpg: cannot be opened (install s3fs)",
    ]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("memory://nothing/", "no pictures there"),
        ("nowhere://photos/", "cannot be opened"),
        ("text.parquet", "not a parquet file"),
        ("numbers.parquet", "looked for image, img"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.parquet").write_text("hello, hello")
    write_parquet(tmp_path / "numbers.parquet", {"image": [1, 2], "label": ["a", "b"]})
    with pytest.raises(InputError, match=message):
        list(units(find_sources([argument]), 2))


def test_pictures_come_in_whole_batches_and_archives_apart(tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "t.parquet", {"bytes": [b"0", b"1", b"2"]})
    found = list(units([*(f"{n}.jpg" for n in range(9)), "s.tar", table, "9.jpg"], batch_size=2))
    assert [unit["rows"] for unit in found] == [8, 1, None, 2, 1, 1]


def test_every_member_of_a_tar_that_is_a_picture(tmp_path: Path) -> None:
    members = {"0.jpg": b"zero", "0.txt": b"a dog", "1.PNG": b"one", "._1.PNG": b"", "x/2.webp": b"two"}
    shard = write_tar(tmp_path / "shard.tar", members)
    assert all_of(shard) == [(f"{shard}/{name}", members[name]) for name in ("0.jpg", "1.PNG", "x/2.webp")]
    for size in (4097, 4000, 3584):  # in the content of x/2.webp, in its header, before it
        os.truncate(shard, size)
        *whole, torn = all_of(shard)
        assert [name for name, _ in whole] == [f"{shard}/0.jpg", f"{shard}/1.PNG"]
        assert "cannot be read to its end" in str(torn[1])
    assert errors_of(all_of(write_tar(tmp_path / "no.tar", {"a.txt": b""}))) == [
        f"{tmp_path}/no.tar: holds no pictures"
    ]
    assert "gone.tar: cannot be read" in errors_of(all_of(str(tmp_path / "gone.tar")))[0]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_column_of_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array([b"0", None, b"2"], kind)
    table = write_parquet(tmp_path / "t.parquet", {"label": [1, 2, 3], "JPG": column})
    found = all_of(table)
    assert [name for name, _ in found] == [f"{table}#{row}" for row in range(3)]
    assert [source for _, source in found if isinstance(source, bytes)] == [b"0", b"2"]
    assert errors_of(found) == [f"{table}#1: the row holds no picture"]


def test_a_column_of_paths_and_addresses(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "t.parquet", {"url": ["x.jpg", "memory://photos/a.jpg"], "number": [1, 2]})
    assert all_of(table) == [("x.jpg", "x.jpg"), ("memory://photos/a.jpg", b"a.jpg")]


def test_hugging_faces_column_of_structs(tmp_path: Path) -> None:
    values = [{"bytes": b"0", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, None]
    table = write_parquet(tmp_path / "t.parquet", {"text": ["x", "y", "z"], "image": values})
    assert all_of(table)[:2] == [(f"{table}#0", b"0"), ("b.jpg", "b.jpg")]


def test_a_damaged_row_group_gives_as_many_errors_as_it_has_rows(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    write_parquet(table, {"bytes": [bytes([n]) * 1000 for n in range(6)]}, rows_a_group=3)
    start = pq.ParquetFile(table).metadata.row_group(1).column(0).data_page_offset
    whole = table.read_bytes()
    table.write_bytes(whole[:start] + bytes(40) + whole[start + 40 :])
    found = all_of(str(table))
    assert [name for name, _ in found] == [f"{table}#{row}" for row in range(6)]
    assert len(errors_of(found)) == 3
