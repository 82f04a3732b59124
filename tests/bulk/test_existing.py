"""Adding to a file of captions that a person may have changed."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from captioner import bulk
from captioner.bulk.existing import read_existing
from captioner.bulk.formats import writer
from captioner.errors import OutputError
from captioner.inference.results import Row


def row(path: str, caption: str = "A dog", *others: str) -> Row:
    alternatives = [{"caption": other, "logprob": -2.0} for other in others]
    return {"path": path, "caption": caption, "logprob": -1.5, "words": [], "alternatives": alternatives}


def grown(file: Path, format: str, *rows: Row, num_captions: int = 1) -> bytes:
    """The content of the file with rows added."""
    existing = read_existing(file, format, num_captions)
    assert existing
    return file.read_bytes() + "".join(existing.more(rows)).encode(errors="surrogateescape")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_as_spreadsheet_programs_save_it(
    tmp_path: Path, delimiter: str, mark: str, last: bool, end: str
) -> None:
    lines = ["mark|caption|path", "good|Mine, all mine|a.jpg", "|'=1+1|'-b.jpg"]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(line.split("|") for line in lines)
    (tmp_path / "t").write_text(
        mark + (text.getvalue() if last else text.getvalue().removesuffix(end)), "utf-8", newline=""
    )
    content = grown(tmp_path / "t", "csv", row("a.jpg"), row("-b.jpg"), row("c.jpg", "-1", "B"))
    assert content.startswith((tmp_path / "t").read_bytes())
    table = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter))
    assert table == [*(line.split("|") for line in lines), ["", "'-1", "c.jpg"]]
    assert content.count(end.encode()) == 4
    assert end in ("\n", "\r\n") or b"\n" not in content


def test_several_captions_go_into_their_columns(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("path,caption_2,caption\n")
    assert grown(tmp_path / "t", "csv", row("a.jpg", "A", "B"), num_captions=2).endswith(b'"a.jpg","B","A"\n')
    with pytest.raises(OutputError, match="does not name the columns path, caption, caption_2, caption_3"):
        read_existing(tmp_path / "t", "csv", num_captions=3)


@pytest.mark.parametrize("format", ["text", "jsonl", "csv"])
def test_what_was_written_is_recognised_whatever_its_name(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a.jpg", "=b.jpg", "c\n\td.jpg", 'say "hi".png', "写真.jpg", "no suffix", "caf\udce9.jpg"]
    for name in names:
        Path(name).touch()
    (tmp_path / "t").write_text("".join(writer(format)(map(row, names))), "utf-8", "surrogateescape")
    existing = read_existing(tmp_path / "t", format, 1)
    assert existing
    assert all(map(existing.holds, names))
    assert existing.holds("./a.jpg")
    assert existing.holds(str(tmp_path / "a.jpg"))
    assert not existing.holds("other/a.jpg")
    assert grown(tmp_path / "t", format, *map(row, names)) == (tmp_path / "t").read_bytes()


def test_a_row_of_a_picture_that_failed_is_not_a_caption(tmp_path: Path) -> None:
    (tmp_path / "t").write_text('{"path": "a.jpg", "error": "broken"}\n\n{"path": "b.jpg", "caption": ""}')
    lines = grown(tmp_path / "t", "jsonl", row("a.jpg"), row("b.jpg")).decode().splitlines()
    assert [json.loads(line)["path"] for line in lines if line] == ["a.jpg", "b.jpg", "a.jpg"]


@pytest.mark.parametrize("content", [None, b"", b"\n \r\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("format", ["text", "jsonl", "csv"])
def test_a_file_with_nothing_in_it_is_like_none(tmp_path: Path, format: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "t").write_bytes(content)
    assert read_existing(tmp_path / "t", format, 1) is None


@pytest.mark.parametrize(
    ("format", "content", "reason"),
    [
        ("csv", "image,caption\na.jpg,A dog\n", "first line does not name the columns path, caption"),
        ("csv", 'path,caption\na.jpg,"A dog', "unexpected end of data"),
        ("csv", 'path,caption\na.jpg,"A "nice" dog"\n', "expected after"),
        ("csv", "caption,path\nA dog,a.jpg\nB\n", "row 3 has no path"),
        ("csv", "path,caption\na.jpg,Un café\n".encode("cp1252"), "line 2 is not UTF-8: save"),
        ("csv", "path,caption\ncafé.jpg,A dog\n".encode("cp1252"), "line 2 is not UTF-8: save"),
        ("csv", "path,caption\na.jpg,A dog\n".encode("utf-16"), "it is UTF-16: save it as UTF-8"),
        ("csv", b"PK\x03\x04\0\0\xff\n", "does not name the columns"),
        ("text", "buy milk\n", "line 1 does not begin with the path of a picture and a tab"),
        ("text", "a.jpg\tA dog\nb.jpg A cat\n", "line 2 does not begin"),
        ("text", "image\tcaption\na.jpg\tA dog\n", "line 1 does not begin"),
        ("text", "a.jpg\tUn café\n".encode("cp1252"), "line 1 is not UTF-8"),
        ("jsonl", '{"path": "a.jpg", "caption": "A dog"}\n{"path": "b.j', "line 2 is not JSON"),
        ("jsonl", '[{"path": "a.jpg", "caption": "A dog"}]\n', "line 1 has no 'path'"),
        ("jsonl", '{"image": "a.jpg", "caption": "A dog"}\n', "line 1 has no 'path'"),
        ("jsonl", '{"path": "a.jpg", "caption": "é"}\n'.encode("cp1252"), "line 1 is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_added_to_without_harm(tmp_path: Path, format: str, content: Any, reason: str) -> None:
    (tmp_path / "t").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(OutputError, match=f"t: exists, and captions cannot be added to it .*{reason}.*--overwrite"):
        read_existing(tmp_path / "t", format, 1)


def test_many_pictures_that_were_moved_take_no_longer_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, asked = tmp_path / "t.csv", list[str]()
    file.write_text("path,caption\n" + "".join(f"old/{number}.jpg,A dog\n" for number in range(100)))
    existing = read_existing(file, "csv", 1)
    assert existing
    key = bulk.existing._key
    monkeypatch.setattr(bulk.existing, "_key", lambda path: asked.append(path) or key(path))
    moved = {f"new/{number}.jpg": key(f"old/{number}.jpg") for number in range(100)}
    lines = list(existing.again(file, moved))
    assert lines == [f'"new/{number}.jpg","A dog"\n' for number in range(100)]
    assert len(asked) <= 200
