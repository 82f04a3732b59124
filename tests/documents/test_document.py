"""Documents are read without loss, and written so that nothing but alternative text is new."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from pathlib import Path

import pytest

from captioner.documents import document
from captioner.documents.document import Page, find_documents, read_pages, write_document
from captioner.errors import DataError, InputError, OutputError

WORDS = 'A "red" dog & 写真'
NASTY = """\ufeff---\r
layout: post\r
---\r
<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01//EN"><TITLE><img src=x></TITLE>\r
<IMG SRC=a.png WIDTH=100><iMg\tsrc='b.png'/ ><img src=c.png/>\r
<!-- <img src=d.png> --><script>document.write("<img src=e.png>")</script>\r
<picture><source srcset="f.webp 1x, g.webp 2x"><img srcset="h.png 2x"></picture>\r
<template><img src=i.png></template><noscript><img src=j.png></noscript>\r
<![CDATA[<img src=k.png>]]><img src="l.png" alt="{{ x }}"><img alt="{% if a %}b{% endif %}" src=m.png>\r
<p><a href=n><img src="o.png" title='"'>\r\x0b\x0c\x85\u2028<img src="{{ p }}"><img src=q.png alt>\r
<td><img src="r.png" <td><br><img
src=s.png
>{{ "<img src=t.png>" }} <img src="unclosed"""


def fill(path: Path) -> list[str]:
    """Fill in all that lacks; the addresses of the pictures."""
    data = path.read_bytes()
    words = {page.member: [(image, WORDS) for image in page.images(str(path))] for page in read_pages(str(path), data)}
    write_document(str(path), hashlib.sha256(data).hexdigest(), words)
    return [image.attributes.get("src", "") for images in words.values() for image, _ in images]


def without(data: bytes, encoding: str) -> bytes:
    """The document without the attributes that `fill` has written."""
    written = ' alt="A &quot;red&quot; dog &amp; 写真"'.encode(encoding, "xmlcharrefreplace")
    return data.replace(written, b"")


@pytest.mark.parametrize("name", ["a.html", "a.HTM", "a.md"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_nothing_but_alternative_text_is_new(tmp_path: Path, name: str, encoding: str) -> None:
    file, before = tmp_path / name, NASTY.encode(encoding)
    file.write_bytes(before)
    filled = fill(file)
    after = file.read_bytes()
    assert len(filled) > 5
    assert not {"x", "d.png", "e.png", "l.png", "m.png", "q.png"} & set(filled)
    assert after.count(WORDS[-2:].encode(encoding)) == len(filled)
    assert without(after, encoding) == before
    assert fill(file) == []
    assert file.read_bytes() == after


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ("<meta charset=windows-1252>", "cp1252"),
        ('<META http-equiv="Content-Type" content="text/html; charset=ISO-8859-1">', "cp1252"),
        ("<meta charset='shift_jis'>", "cp932"),
        ('<?xml version="1.0" encoding="gb2312"?>', "gb18030"),
        ("<meta charset=utf-8>", "utf-8"),
        ("<meta charset=no-such>", "utf-8"),
        ("<meta charset=utf-16>", "utf-8"),
    ],
)
def test_a_declared_encoding_is_kept_and_what_it_lacks_is_written_as_numbers(
    tmp_path: Path, head: str, encoding: str
) -> None:
    letters = {"cp1252": "caf\xe9 \u201cx\u201d", "cp932": "\u8868\u793a", "gb18030": "\u4e2d"}.get(encoding, "\xe9")
    file = tmp_path / "a.html"
    before = f"{head}<p>{letters}<img src='{letters}.png'>".encode(encoding)
    file.write_bytes(before)
    assert fill(file) == [f"{letters}.png"]
    after = file.read_bytes()
    assert without(after, encoding) == before
    assert (b"&#20889;" in after) == (encoding == "cp1252")


def test_bytes_that_are_no_text_in_the_declared_encoding_stay(tmp_path: Path) -> None:
    file = tmp_path / "a.html"
    before = b"<meta charset=utf-8>caf\xe9 \xff\xfe \x80<img src=a>\x81"
    file.write_bytes(before)
    assert fill(file) == ["a"]
    assert without(file.read_bytes(), "utf-8") == before


def test_what_would_be_lost_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a text file"):
        Page.of(b"\xff\xfea", "a.md")  # half a character
    with pytest.raises(DataError, match="not a text file in UNICODE_ESCAPE"):
        Page.of(b"<meta charset=unicode_escape>\\x41", "a.html")


def book(path: Path, page: str = "<html xmlns='http://www.w3.org/1999/xhtml'><img src='a.png'/></html>") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"a book"
        archive.writestr(zipfile.ZipInfo("mimetype", (2020, 1, 2, 3, 4, 6)), "application/epub+zip")
        for name, content in (("OEBPS/b.xhtml", page), ("OEBPS/a.png", "png" * 1000), ("OEBPS/b.css", "p {}" * 99)):
            info = zipfile.ZipInfo(name, (2021, 5, 6, 7, 8, 10))
            info.external_attr, info.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)


def members(path: Path) -> list[tuple[object, ...]]:
    with zipfile.ZipFile(path) as archive:
        rows = archive.infolist()
        return [(i.filename, i.date_time, i.compress_type, i.external_attr, archive.read(i)) for i in rows]


def test_a_book_keeps_its_members_their_order_dates_and_compression(tmp_path: Path) -> None:
    file = tmp_path / "a.epub"
    book(file)
    before = members(file)
    assert fill(file) == ["a.png"]
    after = members(file)
    assert [row[:4] for row in after] == [row[:4] for row in before]
    for (name, *_, old), (*_, new) in zip(before, after, strict=True):
        assert without(new, "utf-8") == old  # type: ignore[arg-type]
        assert (new != old) == (name == "OEBPS/b.xhtml")
    data = file.read_bytes()
    assert data[30:58] == b"mimetypeapplication/epub+zip"  # as readers recognise an EPUB
    assert zipfile.ZipFile(io.BytesIO(data)).comment == b"a book"


@pytest.mark.parametrize("damage", ["not a zip", "cut off", "two of a name"])
def test_a_damaged_book_is_refused(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "a.epub"
    book(file)
    data = file.read_bytes()
    if damage == "two of a name":
        with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(file, "a") as archive:
            archive.writestr("OEBPS/b.xhtml", "<p/>")
        data = file.read_bytes()
    data = {"not a zip": b"<p>", "cut off": data[:200]}.get(damage, data)
    with pytest.raises(DataError):
        list(read_pages("a.epub", data))


def test_a_document_that_changed_meanwhile_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.html"
    file.write_text("<img src=a>")
    [page] = read_pages(str(file), file.read_bytes())
    words, digest = (
        {"": [(image, WORDS) for image in page.images("a.html")]},
        hashlib.sha256(b"<img src=a>").hexdigest(),
    )
    file.write_text("<p>new<img src=a>")
    with pytest.raises(OutputError, match=r"a\.html: has changed meanwhile"):
        write_document(str(file), digest, words)
    assert file.read_text() == "<p>new<img src=a>"
    # At the last moment, too.
    file.write_text("<img src=a>")
    read = document.read_pages
    monkeypatch.setattr(document, "read_pages", lambda *given: file.write_text("later") and read(*given))
    with pytest.raises(OutputError):
        write_document(str(file), digest, words)
    assert file.read_text() == "later"
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_the_documents_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        "a.md",
        "b/c.HTML",
        "b/d.epub",
        "b/e.png",
        ".git/f.md",
        "node_modules/g.md",
        "b/.h.md",
        "i.xhtml",
        "j.mdx",
        "k.txt",
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.md").symlink_to("a.md")
    monkeypatch.chdir(tmp_path)
    assert find_documents(["."]) == ["./a.md", "./i.xhtml", "./j.mdx", "./b/c.HTML", "./b/d.epub"]
    assert find_documents(["b/c.HTML", "b"]) == ["b/c.HTML", "b/d.epub"]
    for wrong, message in (
        ("k.txt", "is no document"),
        ("gone", "no such file"),
        (".git/../node_modules/x", "no such"),
    ):
        with pytest.raises(InputError, match=re.escape(wrong) + ".*" + message):
            find_documents([wrong])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no Markdown, HTML or EPUB"):
        find_documents(["empty"])
