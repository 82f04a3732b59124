"""Galleries of several pages."""

import re
from collections.abc import Iterable, Iterator
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

from captioner.bulk import gallery
from captioner.bulk.formats import writer
from captioner.bulk.gallery import Page
from captioner.bulk.outputs import Output
from captioner.bulk.wanted import in_one
from captioner.errors import OutputError
from captioner.inference.results import Row


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "PICTURES", 3)


def rows(number: int, word: str = "dog") -> list[Row]:
    common = {"caption": f"A {word}", "logprob": -1.5, "words": [], "end_probability": None}
    return [{"path": f"{word} {place}.jpg", **common} for place in range(number)]


def target(file: Path, overwrite: bool = False) -> Output:
    return in_one(file, "html", 1, writer("html", preview=lambda path: None), overwrite)


def write(file: Path, number: int, word: str = "dog", overwrite: bool = False) -> None:
    output, found = target(file, overwrite), rows(number, word)
    output.check([row["path"] for row in found])
    output.write(found)


def files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def shown(page: Path) -> list[str]:
    return re.findall(r'<small title="([^"]*)"', page.read_text())


def test_every_picture_is_on_one_page(tmp_path: Path) -> None:
    write(tmp_path / "captions.html", 8)
    assert files(tmp_path) == ["captions.html", "captions.html-pages/2.html", "captions.html-pages/3.html"]
    pages = [
        tmp_path / "captions.html",
        tmp_path / "captions.html-pages/2.html",
        tmp_path / "captions.html-pages/3.html",
    ]
    assert [len(shown(page)) for page in pages] == [3, 3, 2]
    assert [path for page in pages for path in shown(page)] == [row["path"] for row in rows(8)]
    assert "<title>Captions, page 2 of 3</title>" in pages[1].read_text()
    assert "pictures on this page`" in pages[2].read_text()


def test_links_lead_to_the_other_pages(tmp_path: Path) -> None:
    first = tmp_path / 'say "hi" & caf\udce9 #1%.html'
    write(first, 11)
    for page in [first, *sorted((tmp_path / f"{first.name}-pages").iterdir())]:
        text = page.read_text(errors="surrogateescape")
        links = [unquote(unescape(link), errors="surrogateescape") for link in re.findall(r'href="([^"]*)"', text)]
        assert len(links) >= 8  # twice the three other pages, and the one before or after
        reached = {(page.parent / link).resolve() for link in links}
        assert first.resolve() in reached or page == first
        assert all(there.is_file() for there in reached)
        assert len(reached) == 3


def test_what_fits_on_one_page_is_the_same_as_ever(tmp_path: Path) -> None:
    write(tmp_path / "captions.html", 3)
    assert files(tmp_path) == ["captions.html"]
    assert (tmp_path / "captions.html").read_text() == "".join(writer("html", preview=lambda path: None)(rows(3)))
    assert "nav" not in (tmp_path / "captions.html").read_text()
    assert "generator" not in (tmp_path / "captions.html").read_text()


def test_from_far_pages_links_lead_to_near_ones_and_to_both_ends() -> None:
    near = Page(Path("a.html"), 500, 1000).near()
    assert near == [1, 400, 490, 498, 499, 500, 501, 502, 510, 600, 1000]
    assert Page(Path("a.html"), 1, 2).near() == [1, 2]


def test_old_pages_of_a_larger_gallery_go_and_files_of_others_stay(tmp_path: Path) -> None:
    first, folder = tmp_path / "captions.html", tmp_path / "captions.html-pages"
    write(first, 14)
    (folder / "notes.txt").write_text("mine")
    (folder / "6.html").write_text("mine, too")
    with pytest.raises(OutputError, match="html cannot be added to"):
        target(first)
    write(first, 5, "cat", overwrite=True)
    assert files(tmp_path) == [
        first.name,
        "captions.html-pages/2.html",
        "captions.html-pages/6.html",
        "captions.html-pages/notes.txt",
    ]
    assert shown(folder / "2.html") == ["cat 3.jpg", "cat 4.jpg"]
    (folder / "notes.txt").unlink()
    (folder / "6.html").unlink()
    write(first, 2, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


def test_pages_of_a_gallery_that_was_renamed_stay(tmp_path: Path) -> None:
    first, page = tmp_path / "captions.html", tmp_path / "captions.html-pages/2.html"
    write(first, 8)
    first.rename(tmp_path / "old.html")
    with pytest.raises(OutputError, match=r"captions.html-pages: has pages of a gallery whose first page is gone"):
        target(first).check([row["path"] for row in rows(8)])
    write(first, 2)
    assert page.exists()
    # A run that was killed while it wrote pages left its journal, and goes on.
    first.unlink()
    Path(target(first).journal).touch()
    target(first).check([row["path"] for row in rows(8)])


def test_galleries_that_differ_in_their_suffix_have_pages_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "a.html", 4)
    write(tmp_path / "a.htm", 4, "cat")
    assert shown(tmp_path / "a.html-pages/2.html") == ["dog 3.jpg"]
    assert shown(tmp_path / "a.htm-pages/2.html") == ["cat 3.jpg"]


def test_what_is_in_the_way_is_told_before_anything_is_done(tmp_path: Path) -> None:
    first, folder = tmp_path / "captions.html", tmp_path / "captions.html-pages"
    paths = [row["path"] for row in rows(8)]
    folder.write_text("mine")
    with pytest.raises(OutputError, match=r"captions.html-pages: is a file, where the pages .*: move it away"):
        target(first).check(paths)
    target(first).check(paths[:3])  # one page needs no folder
    folder.unlink()
    folder.mkdir()
    (folder / "3.html").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"3.html: exists, and is no page of a gallery: move it away"):
            target(first, overwrite).check(paths)
    target(first).check(paths[:6])


def test_the_first_page_comes_last(tmp_path: Path) -> None:
    """So that a first page never has links to pages that a killed run did not write; the next run replaces those."""

    class Killed(list[Row]):
        def __iter__(self) -> Iterator[Row]:
            yield from rows(5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        target(tmp_path / "captions.html").write(Killed(rows(8)))
    assert files(tmp_path) == []
    write(tmp_path / "captions.html", 8, "cat")
    (tmp_path / "captions.html").unlink()
    Path(target(tmp_path / "captions.html").journal).touch()
    write(tmp_path / "captions.html", 8)
    assert shown(tmp_path / "captions.html-pages/2.html") == ["dog 3.jpg", "dog 4.jpg", "dog 5.jpg"]


def test_rows_are_taken_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, there = list[int](), list[int]()

    class Counted(list[Row]):
        def __iter__(self) -> Iterator[Row]:
            for number, row in enumerate(rows(9)):
                taken.append(number)
                yield row

    render = writer("html", preview=lambda path: None)

    def rendered(found: Iterable[Row], page: Page) -> Iterator[str]:
        there.append(len(taken))
        return render(found, page=page)

    in_one(tmp_path / "captions.html", "html", 1, rendered).write(Counted(rows(9)))
    assert there == [0, 3, 6]
