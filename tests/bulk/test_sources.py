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

from captioner.bulk.earlier import Earlier
from captioner.bulk.sources import Given, NamedPicture, find_sources, pictures, units
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
    first = (f"{shard}/0.jpg", Given("a dog", b"zero"))
    assert all_of(shard) == [first, *((f"{shard}/{name}", members[name]) for name in ("1.PNG", "x/2.webp"))]
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
    assert all_of(table)[:2] == [(f"{table}#0", Given("x", b"0")), ("b.jpg", Given("y", "b.jpg"))]


def test_a_damaged_row_group_gives_as_many_errors_as_it_has_rows(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    write_parquet(table, {"bytes": [bytes([n]) * 1000 for n in range(6)]}, rows_a_group=3)
    start = pq.ParquetFile(table).metadata.row_group(1).column(0).data_page_offset
    whole = table.read_bytes()
    table.write_bytes(whole[:start] + bytes(40) + whole[start + 40 :])
    found = all_of(str(table))
    assert [name for name, _ in found] == [f"{table}#{row}" for row in range(6)]
    assert len(errors_of(found)) == 3


def test_the_captions_of_a_tar_file_that_stand_next_to_their_pictures(tmp_path: Path) -> None:
    texts = {
        **{"a.jpg": b"a", "a.json": b'{"caption": "from json"}', "a.txt": "\ufefftwo\r\nlines \n".encode()},
        **{
            "b.txt": b"tags",
            "b.caption": b"counts first",
            "b.jpg": b"b",
            "c.jpg": b"c",
            "c.json": b'{"caption": null}',
        },
        **{"d.jpg": b"d", "d.json": b"[", "e.jpg": b"e", "e.json": b'{"caption": "only json"}', "f.jpg": b"f"},
        **{"g.jpg": b"g", "f.txt": b"far away", "h.jpg": b"h", "h.txt": b" \n"},
    }
    shard = write_tar(tmp_path / "shard.tar", texts)
    given = {name.removeprefix(f"{shard}/"): each.caption for name, each in all_of(shard) if isinstance(each, Given)}
    assert given == {"a.jpg": "two\r\nlines ", "b.jpg": "counts first", "e.jpg": "only json"}
    assert [name.removeprefix(f"{shard}/") for name, _ in all_of(shard)] == [f"{letter}.jpg" for letter in "abcdefgh"]


def test_the_last_picture_of_a_torn_tar_waits_for_the_caption_behind_it(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", {"a.jpg": b"a", "a.txt": b"mine", "b.jpg": b"b", "b.txt": b"mine, too"})
    whole = Path(shard).read_bytes()
    for cut, kept in ((b"b.txt", ["a.jpg"]), (b"b.jpg", ["a.jpg"]), (b"a.txt", [])):
        Path(shard).write_bytes(whole[: whole.index(cut)])
        *found, (name, error) = all_of(shard)
        assert [name.removeprefix(f"{shard}/") for name, _ in found] == kept
        assert all(isinstance(each, Given) for _, each in found)
        assert name == shard
        assert isinstance(error, ImageError)


def test_rows_of_one_path_in_a_table_are_told_apart_by_their_number(tmp_path: Path) -> None:
    paths, captions = ["p.jpg", "p.jpg", "q.jpg", "p.jpg"], ["one", "two", "three", "four"]
    table = write_parquet(tmp_path / "t.parquet", {"path": paths, "caption": captions})
    for stop in range(len(paths) + 1):
        earlier = Earlier()
        for path in paths[:stop]:
            earlier.add(path, failed=False)
        found = [each for unit in units([table], 2, earlier) for _, each in pictures(unit, 2, look=False)]
        assert [each.caption for each in found if isinstance(each, Given)] == captions[stop:]
        assert earlier.known == stop


def test_rows_of_a_table_that_failed_by_number_are_asked_for_again(tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "t.parquet", {"path": ["a.jpg", "b.jpg"]})
    earlier = Earlier()
    earlier.add("a.jpg", failed=False)  # the run that mended it was killed
    for number in range(2):
        earlier.add(f"{table}#{number}", failed=True)
    assert [unit["rows"] for unit in units([table], 2, earlier)] == [1]
    assert earlier.again == earlier.failed


@pytest.mark.parametrize("name", ["caption", "TEXT"])
def test_a_column_with_captions(store: fsspec.AbstractFileSystem, tmp_path: Path, name: str) -> None:
    captions = pa.array(["x", None, "", " y \n"], pa.large_string())
    addresses = ["memory://photos/a.jpg", "memory://photos/b.png", "memory://photos/a.jpg", "memory://none.jpg"]
    table = write_parquet(tmp_path / "t.parquet", {name: captions, "url": addresses, "other": ["z"] * 4}, 4)
    [unit] = units([table], 2)
    unread = [source for _, source in pictures(unit, 2, look=False)]
    assert unread == [Given("x", addresses[0]), b"b.png", b"a.jpg", Given(" y ", addresses[3])]
    first, *_, last = (source for _, source in pictures(unit, 2))
    assert first == Given("x", b"a.jpg")
    assert isinstance(last, Given)
    assert isinstance(last.picture, ImageError)


def test_lists_and_numbers_are_no_captions(tmp_path: Path) -> None:
    columns = {"image": [b"0"], "caption": [["x", "y"]], "text": [1]}
    assert all_of(write_parquet(tmp_path / "t.parquet", columns))[0][1] == b"0"


def test_what_has_a_row_already_is_left_out(tmp_path: Path) -> None:
    earlier, names = Earlier([f"{tmp_path}/{name}.tar" for name in ("whole", "torn")]), ["x.jpg", "y.jpg", "z.jpg"]
    shards = {
        name: write_tar(tmp_path / f"{name}.tar", {f"{n}.jpg": b"%d" % n for n in range(3)})
        for name in ("whole", "torn")
    }
    images = [{"bytes": b"0", "path": "0.jpg"}, {"bytes": None, "path": "y.jpg"}, {"bytes": None, "path": "new.jpg"}]
    tables = [
        write_parquet(tmp_path / "bytes.parquet", {"image": [b"0", b"1", b"2"]}, 3),
        write_parquet(tmp_path / "names.parquet", {"path": pa.array(names).dictionary_encode()}, 2),
        write_parquet(tmp_path / "structs.parquet", {"image": images}, 3),
        write_parquet(tmp_path / "done.parquet", {"path": ["x.jpg"]}),
    ]
    for name in (
        *["x.jpg"] * 3,  # as often as they are given
        *["y.jpg"] * 2,
        f"{tables[0]}#1",
        f"{tables[2]}#0",
        *(f"{shards['whole']}/{n}.jpg" for n in range(3)),
    ):
        earlier.add(name, failed=False)
    for name, failed in (("0.jpg", False), ("1.jpg", True), ("2.jpg", False)):
        earlier.add(f"{shards['torn']}/{name}", failed)
    work = list(units(["x.jpg", "w.jpg", *shards.values(), *tables], 2, earlier))
    assert [unit["rows"] for unit in work] == [1, None, 2, 1, 1]
    found = [picture for unit in work for picture in pictures(unit, 2)]
    assert found == [
        ("w.jpg", "w.jpg"),
        (f"{shards['torn']}/1.jpg", b"1"),
        *((f"{tables[0]}#{n}", b"%d" % n) for n in (0, 2)),
        ("z.jpg", "z.jpg"),
        ("new.jpg", "new.jpg"),
    ]


def test_a_tar_file_in_which_nothing_is_new_is_no_error(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", {"0.jpg": b"0"})
    assert list(pictures({"tar": shard, "skip": ["0.jpg"], "rows": None}, 2)) == []


def test_of_a_damaged_row_group_only_wanted_rows_are_errors(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    write_parquet(table, {"path": [f"{n:0999}" for n in range(6)]}, rows_a_group=3)
    start = pq.ParquetFile(table).metadata.row_group(1).column(0).data_page_offset
    whole = table.read_bytes()
    table.write_bytes(whole[:start] + bytes(40) + whole[start + 40 :])
    earlier = Earlier()
    earlier.add(f"{table}#4", failed=False)
    earlier.add(f"{1:0999}", failed=False)
    found = [picture for unit in units([str(table)], 2, earlier) for picture in pictures(unit, 2)]
    assert [name for name, _ in found] == [f"{0:0999}", f"{2:0999}", f"{table}#3", f"{table}#5"]
