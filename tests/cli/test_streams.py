"""What is printed survives every terminal, and lists on stdin come in every encoding."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from captioner.cli.main import main

Run: TypeAlias = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, chinese_checkpoint_file: Path) -> Run:
    """`captioner caption ...` with streams of an encoding: status, stdout and stderr."""

    def run_here(encoding: str, *arguments: object, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        streams = [io.TextIOWrapper(io.BytesIO(data), encoding=encoding) for data in (stdin, b"", b"")]
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            monkeypatch.setattr(sys, name, stream)
        status = main(["caption", *map(str, arguments), "--checkpoint", str(chinese_checkpoint_file)])
        for stream in streams[1:]:
            stream.flush()
        return status, *(stream.buffer.getvalue() for stream in streams[1:])  # type: ignore[attr-defined]

    return run_here


@pytest.fixture
def chinese(pictures: list[Path]) -> Path:
    return pictures[0].rename(pictures[0].with_name("é写真🐶.jpg"))


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("cp1252", r"é\u5199\u771f\U0001f436.jpg"),
        ("ascii", r"\xe9\u5199\u771f\U0001f436.jpg"),
        ("cp932", r"\xe9写真\U0001f436.jpg"),
        ("utf-8", "é写真🐶.jpg"),
        ("utf-16-le", "é写真🐶.jpg"),
    ],
)
def test_what_a_terminal_lacks_is_escaped(run: Run, chinese: Path, encoding: str, printed: str) -> None:
    status, out, err = run(encoding, chinese, chinese.with_name("无.jpg"))
    assert status == 1, "the second picture is missing"
    assert out.decode(encoding).partition("\t")[0].endswith(os.sep + printed)
    escaped = "无".encode(encoding, "backslashreplace").decode(encoding)
    assert f"{escaped}.jpg: no such file" in err.decode(encoding)


def test_bytes_that_are_no_text_are_printed_as_they_are(run: Run, pictures: list[Path]) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    pictures[0].rename(pictures[0].with_name(name))
    status, out, _ = run("cp1252", pictures[0].with_name(name))
    assert status == 0
    assert b"caf\xe9.jpg\t" in out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp932"])
def test_json_and_html_are_right_in_every_encoding(run: Run, chinese: Path, encoding: str) -> None:
    (_, expected, _), (_, out, _) = (run(name, chinese, "-f", "jsonl") for name in ("utf-8", encoding))
    assert json.loads(out.decode("ascii")) == json.loads(expected)
    (_, out, _) = run(encoding, chinese, "-f", "html")
    assert "&#233;&#20889;&#30495;&#128054;.jpg" in out.decode("ascii")


def test_files_are_utf8_and_csv_has_the_mark_that_excel_needs(run: Run, chinese: Path, tmp_path: Path) -> None:
    for form in ("text", "csv"):
        assert run("cp1252", chinese, "-f", form, "-o", tmp_path / form)[0] == 0
    assert "写真🐶.jpg\t" in (tmp_path / "text").read_text(encoding="utf-8")
    assert (tmp_path / "csv").read_bytes().startswith(b'\xef\xbb\xbf"path"')
    with (tmp_path / "csv").open(encoding="utf-8-sig", newline="") as file:
        ((_, row),) = (list(csv.reader(file)),)
    assert row[0] == str(chinese)
    pandas = pytest.importorskip("pandas")  # Streamlit needs it
    assert list(pandas.read_csv(tmp_path / "csv")["path"]) == [str(chinese)]
    assert run("utf-8", chinese, "-f", "csv")[1].startswith(b'"path"'), "programs read streams"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_a_list_in_every_encoding(run: Run, pictures: list[Path], encoding: str, line_end: str) -> None:
    named = pictures[0].rename(pictures[0].with_name("café.jpg"))
    data = line_end.join([str(named), str(pictures[1]), ""]).encode(encoding)
    status, out, _ = run("utf-8", "-", stdin=data)
    assert status == 0
    assert [line.partition("\t")[0] for line in out.decode().splitlines()] == [str(named), str(pictures[1])]


def test_a_name_that_is_no_text_goes_before_a_guess(run: Run, pictures: list[Path]) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    pictures[0].rename(pictures[0].with_name(name))
    pictures[1].rename(pictures[1].with_name("café.jpg"))
    status, out, _ = run("utf-8", "-", stdin=os.fsencode(pictures[0].with_name(name)) + b"\n")
    assert status == 0
    assert b"caf\xe9.jpg\t" in out
