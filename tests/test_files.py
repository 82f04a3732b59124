"""Files are replaced whole or not at all, and JSON is read with care."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any
from unittest.mock import Mock

import pytest

from captioner.errors import DataError
from captioner.files import (
    Beside,
    cache_folder,
    decoded,
    read_json,
    remove_temporaries,
    replacing,
    sha256_of,
    without_suffix,
)


def test_a_new_file_appears_with_the_folders_above_it(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "one" / "log.txt"
    with replacing(target) as file:
        file.write("done")
    assert target.read_text() == "done"


@pytest.mark.parametrize("links", [True, False])
def test_of_two_that_write_a_new_file_the_first_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError(1, "no hard links here")))
    target = tmp_path / "new.txt"

    def write(text: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        with replacing(target, "x") as file:
            file.write(text)
            meanwhile()

    with pytest.raises(FileExistsError, match=r"new\.txt"):
        write("second", lambda: write("first"))
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_the_old_content_stays_until_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with target.open() as reader:
        with replacing(target) as file:
            file.write("new")
            file.flush()
            assert target.read_text() == "old"
        assert target.read_text() == "new"
        assert reader.read() == "old"  # who has it open goes on reading the old file


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_content_and_nothing_else(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write() -> None:
        with replacing(target) as file:
            file.write("half")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_the_old_content_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "a.txt"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), replacing(target) as file:
        file.write("new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: Any, **options: Any) -> IO[Any]:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError) as caught, replacing(tmp_path / "a.txt"):
        pytest.fail("there is nothing to write to")
    assert caught.value.filename == str(tmp_path / "a.txt")


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    with replacing(tmp_path / ("x" * 251 + ".txt")) as file:
        file.write("new")
    assert len(list(tmp_path.iterdir())) == 1


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Each writes the same file; whichever ends last, the content is of one of them."""
    target, together = tmp_path / "a.txt", threading.Barrier(4)

    def write(text: str) -> None:
        with replacing(target) as file:
            file.write(text)
            together.wait(10)

    texts = [letter * 1000 for letter in "abcd"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, texts))
    assert target.read_text() in texts
    assert list(tmp_path.iterdir()) == [target]


def test_text_is_utf8_with_unix_line_ends_and_names_that_are_no_text_survive(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    with replacing(tmp_path / "a.txt") as file:
        file.write(f"{name}\tein Hündchen\n")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xe9.jpg\tein H\xc3\xbcndchen\n"


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    with replacing(tmp_path / "a", "wb") as file:
        file.write(b"\r\n\0\xff")
    assert (tmp_path / "a").read_bytes() == b"\r\n\0\xff"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "a.txt", tmp_path / "link"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="this system has no /dev/fd")
def test_a_pipe_is_written_to_not_replaced(tmp_path: Path) -> None:
    """Or else `--output /dev/stdout`, as root, would put a file in the place of the device."""
    reading, writing = os.pipe()
    with replacing(Path(f"/dev/fd/{writing}")) as file:
        file.write("hello")
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "hello"


def test_a_folder_in_the_way_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(tmp_path.name)), replacing(tmp_path):
        pytest.fail("there is nothing to write to")


@pytest.mark.skipif(sys.platform == "win32", reason="has other permissions")
def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    with replacing(tmp_path / "ours"):
        pass
    (tmp_path / "usual").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 1])
def test_sha256_is_that_of_the_content(size: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * size)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"x" * size).hexdigest()


@pytest.mark.skipif(sys.platform == "win32", reason="has other permissions")
def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    """What only its owner may read must not become readable to all."""
    file = tmp_path / "a.txt"
    file.touch()
    file.chmod(0o600)
    with replacing(file) as new:
        assert all(entry.stat().st_mode & 0o777 == 0o600 for entry in tmp_path.iterdir())
        new.write("new")
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everything
    with pytest.raises(PermissionError) as caught, replacing(file):
        pytest.fail("it must not be written")
    assert caught.value.filename == str(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_nobody_can_put_a_link_in_the_place_of_the_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "known")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".captioner-known.tmp").symlink_to(tmp_path / "mine")
    with pytest.raises(FileExistsError), replacing(tmp_path / "a.txt"):
        pytest.fail("it must not be written")
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_kills_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".captioner-0123456789abcdef.tmp", ".captioner.journal", "a.tmp"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".captioner.journal", "a.tmp"}


def test_what_another_process_may_still_write_stays(tmp_path: Path) -> None:
    old, new = (tmp_path / f".captioner-{number}.tmp" for number in range(2))
    for path, age in ((old, 120), (new, 0)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    remove_temporaries(tmp_path, age=60)
    assert list(tmp_path.iterdir()) == [new]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_json_is_read_with_and_without_a_byte_order_mark(mark: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(mark + '{"a": [1, "é"]}\n'.encode())
    assert read_json(file) == {"a": [1, "é"]}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"\xff\xd8\xff\xe0", "not a list of rows (*)"),
        (b"{", "not a list of rows (*)"),
        (b"[" * 100_000, "not a list of rows (*)"),
        (b"1" * 10_000, "not a list of rows (*)"),
    ],
    ids=range(7),
)
def test_what_is_no_json_is_named(content: bytes, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_json(file, "a list of rows")
    assert fnmatchcase(str(caught.value), f"{file}: {complaint}")
    assert "\n" not in str(caught.value)


def test_json_that_cannot_be_read_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


TEXTS = {
    "cp1252": ["un café à Paris , près de la rivière", "a sign says “STOP” – don’t go"],
    "cp1250": ["Pies biegnie przez śnieg , ząb", "Kisfiú és a kutyája őrzi a tűzet"],
    "cp1251": ["Собака бежит по снегу", "Две девочки играют с мячом"],
    "cp1253": ["Ένας σκύλος τρέχει στο χιόνι", "Δύο κορίτσια παίζουν με μια μπάλα"],
    "gb18030": ["一个穿着泳装的女人躺在海水里。", "一只狗在草地上跑"],
    "big5": ["一隻狗在草地上奔跑", "兩個男人站在花園裡"],
    "cp932": ["犬が雪の中を走っている", "二人の女の子がボールで遊ぶ"],
    "cp949": ["개가 눈 속을 달린다", "두 소녀가 공을 가지고 논다"],
}
UNICODE = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


@pytest.mark.parametrize("page", TEXTS)
def test_text_is_read_in_unicode_and_in_windows_code_pages(page: str) -> None:
    text = "image,caption\r\n" + "".join(f"{number}.jpg,{line}\n" for number, line in enumerate(TEXTS[page]))
    for encoding in (*UNICODE, page):
        assert decoded(text.encode(encoding))[0] == text
    assert decoded(text.encode(page))[1] == page


@pytest.mark.parametrize(
    "data",
    [
        b"caf\x81",
        "犬".encode("cp932"),  # too little to tell
        "Собака бежит".encode("cp1251"),  # as good in Greek letters
        "über\nÜbung\n".encode() + b"\xff\n",  # damaged UTF-8
        b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01",
        b"\xff\xfea",
        bytes(range(256)),
    ],
)
def test_what_is_no_text_or_doubtful_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"not a text file in UTF-.*: save it as UTF-8"):
        decoded(data)


def test_the_folder_of_the_cache_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CAPTIONER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "captioner"


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("a/b.jpg", "a/b"),
        ("a.b/c", "a.b/c"),
        ("a.", "a."),
        ("a/.jpg", "a/.jpg"),
        ("b.tar.gz", "b.tar"),
        ("", ""),
    ],
)
def test_a_suffix_is_what_pathlib_takes_for_one(path: str, stem: str) -> None:
    assert without_suffix(path) == stem
    assert Path(stem) == (Path(path).with_suffix("") if Path(path).name else Path(path))


def test_a_name_of_dots_and_a_suffix_has_a_suffix() -> None:
    """Python 3.14's pathlib sees none there. A text of an earlier run is found only if this stays as it was."""
    assert without_suffix("a/..jpg") == "a/."


def test_a_folder_is_listed_only_when_many_questions_are_asked(tmp_path: Path) -> None:
    (tmp_path / "7.xmp").touch()
    (tmp_path / "x").mkdir()
    beside = Beside([".xmp"])
    assert all(beside.may_be(str(tmp_path / f"{number}")) for number in range(31))
    assert [number for number in range(40) if beside.may_be(str(tmp_path / f"{number}"))] == [7]
    assert beside.may_be(str(tmp_path / "x" / "1"))
    (tmp_path / "9.XMP").touch()
    assert all(beside.may_be(str(tmp_path / f"{number}")) for number in range(31))  # it looks anew when it comes again
    assert [number for number in range(40) if beside.may_be(str(tmp_path / f"{number}"))] == [7, 9]
    assert all(beside.may_be(str(tmp_path / "gone" / f"{number}")) for number in range(40))
