"""Zips from strangers: bounded, never unpacked to disk, one bad entry does not end the rest."""

from __future__ import annotations

import io
import stat
import struct
import zipfile

import pytest

from captioner.pictures import archives
from captioner.pictures.archives import Member, count, members


class Upload(io.BytesIO):
    """What Streamlit gives for an uploaded file."""

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(data)
        self.name = name


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], name: str = "a.zip") -> Upload:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in entries:
            archive.writestr(entry, data)
    return Upload(name, file.getvalue())


def test_files_and_zips_come_in_order() -> None:
    files = [
        Upload("a.jpg", b"1"),
        zipped(("b.png", b"2"), ("notes.txt", b"no"), ("c/d.webp", b"3")),
        Upload("e.gif", b"4"),
    ]
    assert list(members(files)) == [
        Member("a.jpg", b"1"),
        Member("b.png", b"2"),
        Member("c/d.webp", b"3"),
        Member("e.gif", b"4"),
    ]
    assert count(files) == 4


def test_names_are_harmless_and_differ() -> None:
    names = ["../../etc/a.jpg", "/a.jpg", "C:\\x\\a.jpg", "etc/a.jpg", "..\\a.jpg", "../.jpg", "a/./b.jpg"]
    found = [member.name for member in members([zipped(*((name, b"") for name in names))])]
    assert found == ["etc/a.jpg", "a.jpg", "C_/x/a.jpg", "etc/a (2).jpg", "a (2).jpg", "a/b.jpg"]


def test_what_systems_add_is_left_out() -> None:
    entries = [("__MACOSX/._a.jpg", b"x"), (".hidden/a.jpg", b"x"), ("folder.jpg/", b""), ("a.jpg", b"y")]
    assert list(members([zipped(*entries)])) == [Member("a.jpg", b"y")]


@pytest.mark.parametrize("kind", ["link", "nested", "password", "damaged", "method"])
def test_a_bad_entry_has_a_reason_and_the_next_its_bytes(kind: str) -> None:
    bad = zipfile.ZipInfo("inner.zip" if kind == "nested" else "bad.jpg")
    if kind == "link":
        bad.external_attr = (stat.S_IFLNK | 0o777) << 16
    upload = zipped((bad, b"/etc/passwd" * 9), ("good.jpg", b"good"))
    data = bytearray(upload.getvalue())
    entry = data.index(b"PK\x01\x02")
    if kind == "password":
        data[entry + 8] |= 1
    elif kind == "damaged":
        data[40:60] = bytes(20)
    elif kind == "method":
        data[8:10] = data[entry + 10 : entry + 12] = struct.pack("<H", 99)
    reasons = {
        "link": "a link",
        "nested": "a zip inside a zip",
        "password": "password",
        "damaged": "damaged in the zip",
        "method": "damaged in the zip",
    }
    first, second = members([Upload("a.zip", bytes(data))])
    assert first.data is None
    assert reasons[kind] in (first.error or "")
    assert second == Member("good.jpg", b"good")


def test_limits_hold_whatever_the_zip_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER", 1000)
    monkeypatch.setattr(archives, "MAX_TOTAL", 2500)
    bomb = zipped(("a.jpg", bytes(100_000)), *((f"{n}.jpg", bytes(900)) for n in range(4)))
    data = bytearray(bomb.getvalue())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 10)  # it says that it unpacks to 10 bytes
    got = list(members([Upload("a.zip", bytes(data))]))
    assert [len(member.data or b"") for member in got] in ([0, 900, 900, 0, 0], [10, 900, 900, 0, 0])
    assert all(len(member.data or b"") <= 1000 for member in got)
    honest = list(members([bomb]))
    assert honest[0].error == "unpacked it is more than 0 MB"
    assert "for all" in (honest[3].error or "")


def test_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    many = zipped(*((f"{n}.jpg", b"x") for n in range(9)))
    assert len(list(members([many]))) == 3
    assert count([many]) == 9
    monkeypatch.setattr(archives, "MAX_ENTRIES", 8)
    (refused,) = members([many])
    assert refused == Member("a.zip", None, "the zip has more than 8 entries")


@pytest.mark.parametrize("data", [b"", b"PK", b"nothing", b"PK\x05\x06" + bytes(10)])
def test_what_is_no_zip_has_a_reason(data: bytes) -> None:
    assert list(members([Upload("a.zip", data)])) == [Member("a.zip", None, "not a zip, or a damaged one")]
    assert count([Upload("a.zip", data)]) == 1
