"""Captions that a person corrected in a file: where they go, and when nothing is written."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import draw_picture

import captioner
from captioner.bulk.formats import csv_table, jsonl, text
from captioner.errors import DataError, InputError, OptionError
from captioner.metadata import embedded, sidecars
from captioner.metadata.xmp import Entry, Held
from captioner.options import MetadataOptions

NEEDS_EXIV2 = pytest.mark.skipif(not embedded.available(), reason="needs exiv2")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Five pictures with captions of ours in XMP, by paths relative to the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    paths = [f"photos/{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        draw_picture(number).save(path)
        sidecars.Sidecars().write(path, Entry(f"Ours {number}", "en", 0.5))
    return paths


def row(path: str, caption: str, unsure: str = "") -> dict[str, object]:
    """A row as `caption_files` writes it."""
    return {"path": path, "caption": caption, "logprob": -1.0, "words": [], **({"unsure": unsure} if unsure else {})}


def held(path: str) -> Held | None:
    return sidecars.Sidecars().held(path)


def content() -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in Path().rglob("*") if file.is_file()}


@pytest.mark.parametrize("place", ["xmp", pytest.param("embed", marks=NEEDS_EXIV2)])
def test_what_nobody_changed_stays_ours(place: str, photos: list[str]) -> None:
    Path("edited.csv").write_text("".join(csv_table([row(photos[0], "Ours 0"), row(photos[1], "Mine")])))
    captioner.apply_captions("edited.csv", format=place)
    there = held if place == "xmp" else embedded.read
    assert [there(path) for path in photos[:2]] == [Held("Ours 0", True, 0.5), Held("Mine", False)]
    before = content()
    assert captioner.apply_captions("edited.csv", format=place).same == 2
    assert content() == before


@pytest.mark.parametrize("render", [csv_table, jsonl, text])
def test_the_captions_of_every_format_become_a_persons(photos: list[str], render: Callable[..., list[str]]) -> None:
    rows = [row(path, f"=Mine {number}, and yours") for number, path in enumerate(photos)]
    Path("edited").write_text("".join(render(rows)))
    done = captioner.apply_captions("edited", format="xmp")
    assert [path for path, *_ in done.written] == photos
    assert [held(path) for path in photos] == [Held(f"=Mine {number}, and yours", False) for number in range(5)]
    before = content()
    done = captioner.apply_captions("edited", format="xmp")
    assert (done.written, done.same) == ([], 5)
    assert content() == before


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_save_is_understood(photos: list[str], encoding: str, delimiter: str) -> None:
    lines = ["path", "caption"], [photos[0], '"Größe ""XL"""'], [photos[1], "Straßenbahn in Zürich"]
    Path("e.csv").write_bytes("".join(delimiter.join(line) + "\r\n" for line in lines).encode(encoding))
    captioner.apply_captions("e.csv", format="xmp")
    assert held(photos[0]) == Held('Größe "XL"', False)
    assert held(photos[1]) == Held("Straßenbahn in Zürich", False)


def test_a_persons_other_caption_stays_unless_asked(photos: list[str]) -> None:
    sidecars.Sidecars().write(photos[1], Entry("My dog", by_person=True))
    Path("e.csv").write_text("".join(csv_table([row(path, "A dog") for path in [*photos, "photos/gone.jpg"]])))
    before = content()
    dry = captioner.apply_captions("e.csv", format="xmp", dry_run=True)
    assert content() == before
    done = captioner.apply_captions("e.csv", format="xmp")
    assert dry == done
    assert (len(done.written), done.kept, done.missing) == (4, [photos[1]], ["photos/gone.jpg"])
    assert held(photos[1]) == Held("My dog", False)
    done = captioner.apply_captions("e.csv", format="xmp", metadata=MetadataOptions(overwrite_edited=True))
    assert (len(done.written), done.same, done.kept) == (1, 4, [])
    assert held(photos[1]) == Held("A dog", False)


def test_an_empty_caption_is_none_only_where_a_person_emptied_it(photos: list[str]) -> None:
    Path(f"{photos[2]}.xmp").unlink()
    rows = [row(photos[0], ""), row(photos[1], "", "not sure"), row(photos[2], "")]
    Path("e.csv").write_text("".join(csv_table(rows)))
    done = captioner.apply_captions("e.csv", format="xmp")
    assert done.skipped == 1
    assert [held(path) for path in photos[:3]] == [Held("", False), Held("Ours 1", True, 0.5), Held("", False)]
    Path(f"{photos[2]}.xmp").unlink()
    Path("e.txt").write_text("".join(text(rows)))  # which does not tell who left a caption empty
    done = captioner.apply_captions("e.txt", format="xmp")
    assert done.skipped == 1
    assert held(photos[1]) == Held("", False)
    assert held(photos[2]) is None


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("path,logprob\nphotos/0.jpg,-1.5\n", "no known layout"),
        ("photos/0.jpg,-1.5\nphotos/1.jpg,-2.5\n", "where captions should be"),
        ("path,caption\nphotos/0.jpg,A dog\nphotos/0.jpg,A cat\n", "two captions for photos/0.jpg"),
        ("path,caption\nphotos/0.jpg,A dog\n./photos/../photos/0.jpg,A cat\n", "two captions for photos/0.jpg"),
        ("path,caption\nphotos/0.jpg,A dog\nphotos/1.jpg,Ein Hund trÃ¤gt\n", "open it there as UTF-8"),
        ("path,caption\nphotos/0.jpg,A dog\nphotos/1.jpg,????????\n", "lost the letters"),
        ("path,caption\nphotos/8.jpg,A dog\n", "none of its pictures can be found"),
        ("path,caption\n", "has no captions"),
    ],
)
def test_nothing_is_written_if_the_file_is_in_doubt(photos: list[str], lines: str, reason: str) -> None:
    Path("e.csv").write_text(lines)
    before = content()
    with pytest.raises((DataError, InputError), match=reason):
        captioner.apply_captions("e.csv", format="xmp")
    assert content() == before


def test_paths_count_from_here_then_from_the_file_then_in_the_folder_that_was_given(photos: list[str]) -> None:
    Path("lists").mkdir()
    Path("lists/e.csv").write_text(f"path,caption\nelsewhere/0.jpg,A\n{photos[1]},B\n2.jpg,C\n")
    os.link(photos[2], "lists/2.jpg")
    done = captioner.apply_captions("lists/e.csv", format="sidecar")
    assert done.missing == ["elsewhere/0.jpg"]
    assert Path("lists/2.txt").read_text() == "C\n"
    done = captioner.apply_captions("lists/e.csv", format="sidecar", images="photos")
    assert done.missing == []
    assert Path("photos/0.txt").read_text() == "A\n"
    assert done.same == 2


def test_nobody_knows_who_wrote_a_text_file(photos: list[str]) -> None:
    Path("photos/0.txt").write_text("Something\n")
    Path("e.csv").write_text("path,caption\nphotos/0.jpg,A\nphotos/1.jpg,B\n")
    assert captioner.apply_captions("e.csv", format="sidecar").kept == [photos[0]]
    assert Path("photos/0.txt").read_text() == "Something\n"
    captioner.apply_captions("e.csv", format="sidecar", metadata=MetadataOptions(overwrite_edited=True))
    assert Path("photos/0.txt").read_text() == "A\n"


@NEEDS_EXIV2
def test_a_caption_is_embedded_also_where_the_sidecar_holds_it(photos: list[str]) -> None:
    Path("e.csv").write_text("path,caption\nphotos/0.jpg,Mine\n")
    captioner.apply_captions("e.csv", format="xmp")
    assert captioner.apply_captions("e.csv", format="embed").written
    assert embedded.read(photos[0]) == Held("Mine", False)
    before = content()
    assert captioner.apply_captions("e.csv", format="embed").same == 1
    assert content() == before


def test_one_picture_does_not_stop_the_others(photos: list[str]) -> None:
    Path(f"{photos[0]}.xmp").write_text("<damaged")
    Path("e.csv").write_text("path,caption\nphotos/0.jpg,A\nphotos/1.jpg,B\n")
    done = captioner.apply_captions("e.csv", format="xmp")
    assert len(done.failed) == len(done.written) == 1
    assert "0.jpg.xmp: not XMP" in done.failed[0]
    assert Path(f"{photos[0]}.xmp").read_text() == "<damaged"


def test_alternative_text_goes_where_there_is_none(photos: list[str]) -> None:
    Path("site").mkdir()
    page = '![](../{0}) ![mine](../{1}) <img src="../{2}" title="T"> <img src="../{3}" alt=""> ![](../{0})\n'
    Path("site/a.md").write_text(page.format(*photos))
    with zipfile.ZipFile("site/b.epub", "w") as book:
        book.writestr("t.xhtml", '<img src="p.jpg"/>')
        book.write(photos[4], "p.jpg")
    Path("e.csv").write_text("path,caption\n" + "".join(f"{path},Dog {n}\n" for n, path in enumerate(photos)))
    done = captioner.apply_captions("e.csv", format="alt", documents="site")
    assert Path("site/a.md").read_text() == page.replace("![](", "![Dog 0](").replace(
        '<img src="../{2}"', '<img alt="Dog 2" src="../{2}"'
    ).format(*photos)
    assert zipfile.ZipFile("site/b.epub").read("t.xhtml") == b'<img alt="Dog 4" src="p.jpg"/>'
    assert (len(done.written), done.same) == (4, 2)
    before = content()
    done = captioner.apply_captions("e.csv", format="alt", documents=iter(["site"]))
    assert (done.written, len(done.failed), done.same) == ([], 0, 5)
    assert content() == before
    Path("site/a.md").write_text(page.format(*photos))
    assert len(captioner.apply_captions("e.csv", format="alt", documents=Path("site").iterdir()).written) == 3


def test_options_that_do_not_fit_are_refused(photos: list[str]) -> None:
    Path("e.jsonl").write_text(json.dumps(row(photos[0], "A")))
    for given in (
        {"format": "html"},
        {"format": "alt"},
        {"format": "xmp", "documents": "site"},
        {"format": "xmp", "extension": ".caption"},
        {"format": "sidecar", "extension": "caption"},
        {"format": "sidecar", "extension": ".JPG"},
        {"format": "sidecar", "metadata": MetadataOptions(backup=True)},
    ):
        with pytest.raises(OptionError):
            captioner.apply_captions("e.jsonl", **given)  # type: ignore[arg-type]


def test_line_breaks_stay_where_nothing_else_was_changed(photos: list[str]) -> None:
    sidecars.Sidecars().write(photos[0], Entry("My dog\nin the snow", by_person=True))
    Path("photos/1.txt").write_text("A cat \nAnother cat\n")
    before = content()
    for file in ("r.csv", "r.jsonl", "r.tsv"):
        captioner.read_files(photos[:2], file)
        place = {"metadata": MetadataOptions(overwrite_edited=True)} if file != "r.tsv" else {}
        for format in ("xmp", "sidecar"):
            captioner.apply_captions(file, format=format, dry_run=True, **place)  # raises nothing
        assert captioner.apply_captions(file, format="xmp", **place).kept == []
        assert held(photos[0]) == Held("My dog\nin the snow", False)
    captioner.read_files(photos[1], "t.csv", places=["text"])
    assert captioner.apply_captions("t.csv", format="sidecar").same == 1
    assert all(file.read_bytes() == before[str(file)] for file in (Path("photos/1.txt"), Path(f"{photos[0]}.xmp")))


def test_a_link_has_files_of_its_own(photos: list[str]) -> None:
    Path("photos/link.jpg").symlink_to("0.jpg")
    Path("e.csv").write_text("path,caption\nphotos/0.jpg,Mine\nphotos/link.jpg,Of the link\n")
    assert len(captioner.apply_captions("e.csv", format="xmp").written) == 2
    assert (held(photos[0]), held("photos/link.jpg")) == (Held("Mine", False), Held("Of the link", False))
    if embedded.available():
        with pytest.raises(DataError, match="two captions"):
            captioner.apply_captions("e.csv", format="embed")
