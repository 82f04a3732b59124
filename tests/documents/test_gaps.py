"""What is said of each picture without alternative text, and where its file is found."""

from __future__ import annotations

import base64
import zipfile
from pathlib import Path

import pytest
from conftest import draw_picture

from captioner.documents.gaps import find_gaps
from captioner.documents.source import Source, find_source
from captioner.errors import DataError, ImageError


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site with pictures, and the current folder."""
    for name in ("a.png", "img/b c.png", "static/d.png", "docs/img/é.png", "e#f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        draw_picture(1).save(tmp_path / name)
    for name, size in (("dot.gif", (1, 1)), ("line.png", (600, 2)), ("bullet.png", (8, 8)), ("icon.png", (9, 9))):
        draw_picture(1, (50, 50)).resize(size).save(tmp_path / name)
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "v.svg").write_text("<svg/>")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("tag", "state"),
    [
        ("<img src=a.png>", "lacking"),
        ("<img src=icon.png>", "lacking"),
        ("<img src='img/b%20c.png?v=1#x'>", "lacking"),
        ("<img src='e#f.png'>", "lacking"),
        ("<img data-src=a.png src=dot.gif>", "lacking"),
        ("<img srcset='a.png 1x, gone.png 2x'>", "lacking"),
        ("<img src=dot.gif>", "decorative"),
        ("<img src=line.png>", "decorative"),
        ("<img src=bullet.png>", "decorative"),
        ("<img src=a.png role=presentation>", "decorative"),
        ("<img src=a.png aria-hidden=TRUE>", "decorative"),
        ("<img src=https://t.example/p?x=1 width=1 height='1px'>", "decorative"),
        ("<img src=/gone/spacer.gif>", "decorative"),
        ("<img src=gone/blank-page.jpg>", "missing"),
        ("<img src=a.png title='My dog'>", "titled"),
        ("<img src=v.svg>", "vector"),
        ("<img src=gone.png>", "missing"),
        ("<img src=''>", "missing"),
        ("<img src=bad.png>", "unreadable"),
        ("<img src=ftp://example.org/a.png>", "unreadable"),
        ("<img src=//example.org/a.png>", "remote"),
        ("<img src=HTTPS://example.org/a.png>", "remote"),
        ("<img src='{{ a }}'>", "template"),
        ("<img src=a.png {% if x %}class=y{% endif %}>", "template"),
        ("<img {...props}>", "template"),
        ("<img :src='a'>", "template"),
        ("<img src=a.png class='{{ a }}'>", "lacking"),
    ],
)
def test_the_state_of_a_picture(site: Path, tag: str, state: str) -> None:
    Path("x.html").write_text(f"<p>é{tag}")
    [gap] = find_gaps("x.html")
    assert (gap.state, gap.line, gap.column) == (state, 1, 5)


def test_a_template_may_write_the_alternative_text(site: Path) -> None:
    Path("x.html").write_text("<img src=a.png {% if x %}alt='y'{% endif %}>")
    assert list(find_gaps("x.html")) == []


def test_in_markdown_nothing_in_the_brackets_is_right_for_what_is_decorative(site: Path) -> None:
    Path("x.md").write_text("![](dot.gif) ![](a.png 'My dog')\r\n\r\n> ![](a.png)\n")
    assert [(gap.state, gap.line, gap.column) for gap in find_gaps("x.md")] == [("titled", 1, 14), ("lacking", 3, 3)]


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("img/%C3%A9.png", "docs/img/é.png"),
        ("../a.png", "a.png"),
        ("/docs/img/é.png", "docs/img/é.png"),
        ("/d.png", "static/d.png"),
        ("/gone.png", None),
        ("img", None),
        ("\0", None),
    ],
)
def test_where_the_file_of_an_address_is(site: Path, address: str, place: str | None) -> None:
    source = find_source(address, "docs/x.md")
    assert (source.place if source else None) == place


def test_pictures_in_addresses_and_in_books(site: Path) -> None:
    data = Path("a.png").read_bytes()
    encoded = base64.b64encode(data).decode()
    with zipfile.ZipFile("b.epub", "w") as book:
        book.write("a.png", "O/img/a.png")
        book.writestr(
            "O/t/x.xhtml",
            f"<p>\n<img src='../img/a.png'/><img src='data:image/png;base64,{encoded}'/><img src='a.png'/></p>",
        )
    gaps = list(find_gaps("b.epub"))
    assert [gap.state for gap in gaps] == ["lacking", "lacking", "missing"]
    assert (gaps[0].document, gaps[0].line, gaps[0].column) == ("b.epub/O/t/x.xhtml", 2, 1)
    assert [gap.source.read() for gap in gaps[:2] if gap.source] == [data, data]
    assert len(gaps[1].picture) < 100
    with pytest.raises(ImageError, match=r"data:image/png;base64,.*cannot be read"):
        Source("data:image/png;base64,A").read()


def test_a_document_that_is_no_text_is_named(site: Path) -> None:
    Path("x.epub").write_text("no zip")
    with pytest.raises(DataError, match=r"^x\.epub: not an EPUB"):
        list(find_gaps("x.epub"))
