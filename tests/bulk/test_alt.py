"""Alternative text is found wanting and filled in, each picture captioned once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import draw_picture

import captioner
from captioner.bulk import alt
from captioner.bulk.alt import alt_texts
from captioner.errors import OptionError
from captioner.inference.captioner import Captioner


@pytest.fixture
def site(pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of documents with pictures, an empty cache."""
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "cache"))
    (pictures[0].parent / "a.md").write_text("![](picture0.jpg) ![](picture1.jpg)\n![My cat](picture2.jpg)\n")
    (pictures[0].parent / "b.html").write_text(
        "<img src=picture0.jpg><img src=copy.jpg><img src=picture3.jpg title='My dog'>"
        "<img src=picture0.jpg aria-hidden=true><img src=picture4.jpg alt=''><img src=gone.jpg>"
    )
    shutil.copy(pictures[1], pictures[1].with_name("copy.jpg"))
    return pictures[0].parent


@pytest.fixture
def captioned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures that a model has captioned."""
    names: list[str] = []
    caption = Captioner.caption_named

    def noted(self: Captioner, pictures: Any, *more: Any) -> Any:
        return caption(self, ((names.append(name), (name, source))[1] for name, source in pictures), *more)

    monkeypatch.setattr(Captioner, "caption_named", noted)
    return names


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_list_changes_nothing(site: Path) -> None:
    before = contents(site)
    found = alt_texts(site)
    assert [gap.state for gap in found.gaps] == ["lacking"] * 4 + ["titled", "decorative", "missing"]
    assert (found.documents, found.errors) == (2, [])
    assert contents(site) == before


def test_each_picture_is_captioned_once_and_nothing_is_computed_a_second_time(
    site: Path, captioned: list[str], tiny_checkpoint_file: Path
) -> None:
    before = contents(site)
    found = alt_texts([site], write=True, min_confidence=0.0, checkpoint=tiny_checkpoint_file)
    model = captioner.load(tiny_checkpoint_file)
    texts = [model.caption(site / name).text for name in ("picture0.jpg", "picture1.jpg")]
    assert [Path(name).name for name in captioned] == ["picture0.jpg", "picture1.jpg"]
    assert [gap.text for gap in found.gaps] == [*texts, *texts, None, None, None]
    assert [gap.state for gap in found.gaps] == ["written"] * 4 + ["titled", "decorative", "missing"]
    after = contents(site)
    assert (
        after["a.md"].decode() == f"![{texts[0]}](picture0.jpg) ![{texts[1]}](picture1.jpg)\n![My cat](picture2.jpg)\n"
    )
    tags = b'<img alt="%b" src=picture0.jpg><img alt="%b" src=copy.jpg>' % (texts[0].encode(), texts[1].encode())
    assert after["b.html"] == before["b.html"].replace(b"<img src=picture0.jpg><img src=copy.jpg>", tags)
    assert after.keys() == before.keys()
    for name in ("a.md", "b.html"):
        (site / name).write_bytes(before[name])
    alt_texts([site], write=True, min_confidence=0.0, checkpoint=tiny_checkpoint_file)
    assert len(captioned) == 2
    assert contents(site) == after


def test_another_checkpoint_and_a_changed_picture_are_captioned_anew(
    site: Path, captioned: list[str], tiny_checkpoint_file: Path, chinese_checkpoint_file: Path
) -> None:
    for checkpoint in (tiny_checkpoint_file, chinese_checkpoint_file):
        alt_texts(site, write=True, min_confidence=1.0, checkpoint=checkpoint)
    assert len(captioned) == 4
    shutil.copy(site / "picture5.jpg", site / "picture0.jpg")
    alt_texts(site, write=True, min_confidence=1.0, checkpoint=tiny_checkpoint_file)
    assert len(captioned) == 5


def test_what_the_model_is_unsure_of_is_left_with_its_caption(site: Path, tiny_checkpoint_file: Path) -> None:
    before = contents(site)
    found = alt_texts(site, write=True, min_confidence=1.0, checkpoint=tiny_checkpoint_file)
    assert [gap.state for gap in found.gaps[:4]] == ["unsure"] * 4
    assert all(gap.text for gap in found.gaps[:4])
    assert contents(site) == before


def test_decorative_pictures_get_an_empty_text_if_asked_for(site: Path, tiny_checkpoint_file: Path) -> None:
    alt_texts(site, write=True, min_confidence=1.0, checkpoint=tiny_checkpoint_file, decorative=True)
    assert b'<img alt="" src=picture0.jpg aria-hidden=true>' in contents(site)["b.html"]
    assert contents(site)["b.html"].count(b"alt=") == 2


def test_without_the_cache_folder_it_works_all_the_same(
    site: Path, captioned: list[str], tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("in the way")
    alt_texts(site, write=True, min_confidence=0.0, checkpoint=tiny_checkpoint_file)
    assert len(captioned) == 2
    assert b"alt=" in contents(site)["b.html"]


def test_a_damaged_cache_is_left_out(
    site: Path, captioned: list[str], tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "captions.sqlite").write_bytes(b"no database" * 100)
    alt_texts(site, write=True, min_confidence=0.0, checkpoint=tiny_checkpoint_file)
    assert len(captioned) == 2


def test_a_document_that_cannot_be_read_or_written_does_not_stop_the_others(
    site: Path, tiny_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "bad.epub").write_text("no zip")
    write = alt.write_document

    def changed_meanwhile(path: str, *more: Any) -> None:
        if path.endswith(".md"):
            Path(path).write_text("changed")
        write(path, *more)

    monkeypatch.setattr(alt, "write_document", changed_meanwhile)
    found = alt_texts(site, write=True, min_confidence=0.0, checkpoint=tiny_checkpoint_file)
    assert [error.partition(": ")[0] for error in found.errors] == [str(site / "bad.epub"), str(site / "a.md")]
    assert [gap.state for gap in found.gaps[:4]] == ["lacking"] * 2 + ["written"] * 2
    assert (site / "a.md").read_text() == "changed"


@pytest.mark.parametrize("size", [(96, 72), (1, 1)])
def test_remote_pictures_are_fetched_only_if_asked_for(
    site: Path, tiny_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    draw_picture(0).resize(size).save(site / "x.png")
    data, asked = (site / "x.png").read_bytes(), []
    monkeypatch.setattr("captioner.documents.fetch.fetch", lambda address: asked.append(address) or data)
    (site / "a.md").write_text("![](https://example.org/a.jpg)")
    given: dict[str, Any] = {"write": True, "min_confidence": 0.0, "checkpoint": tiny_checkpoint_file}
    [gap] = alt_texts(site / "a.md", **given).gaps
    assert (gap.state, gap.note) == ("remote", "on the web: --write --fetch captions it")
    assert asked == []
    [gap] = alt_texts(site / "a.md", fetch=True, **given).gaps
    assert asked == ["https://example.org/a.jpg"]
    assert gap.state == ("remote" if size == (1, 1) else "written")


@pytest.mark.parametrize("wrong", [{"fetch": True}, {"decorative": True}, {"min_confidence": 1.5}])
def test_options_that_make_no_sense_are_refused(site: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        alt_texts(site, **wrong)


def test_a_picture_that_is_damaged_inside_is_named(site: Path, tiny_checkpoint_file: Path) -> None:
    data = (site / "picture0.jpg").read_bytes()
    (site / "picture0.jpg").write_bytes(data[: len(data) // 2])
    found = alt_texts(site / "a.md", write=True, min_confidence=0.0, checkpoint=tiny_checkpoint_file)
    assert [gap.state for gap in found.gaps] == ["unreadable", "written"]
    assert "picture0.jpg: damaged picture" in found.gaps[0].note
