"""A folder that the page works on: what is on disk, and when."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import draw_picture

import captioner
from captioner.errors import InputError
from captioner.metadata.sidecars import Sidecars
from captioner.metadata.xmp import Entry, Held
from captioner.page.folder import Folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, one of them in a subfolder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "more/c.png")):
        draw_picture(number).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def model(tiny_checkpoint_file: Path) -> captioner.Captioner:
    return captioner.load(tiny_checkpoint_file)


def opened(folder: Path, model: captioner.Captioner, format: str = "xmp") -> Folder:
    """The folder once all is captioned."""
    work = Folder(str(folder), format)
    while work.advance(model):
        pass
    return work


def held(folder: Path, name: str) -> Held | None:
    return Sidecars().held(str(folder / name))


def test_captions_are_written_as_they_are_made_and_corrections_at_once(
    photos: Path, model: captioner.Captioner
) -> None:
    Sidecars().write(str(photos / "b.png"), Entry("my cat", by_person=True))
    work = opened(photos, model)
    assert list(work.found) == ["b.png", "a.png", "more/c.png"]
    assert {path: work.state(path) for path in work.paths()} == {
        **dict.fromkeys(("a.png", "more/c.png"), "written"),
        "b.png": "checked",
    }
    ours = held(photos, "a.png")
    assert ours
    assert (ours.text, ours.ours) == (model.caption(photos / "a.png").text, True)
    work.change("a.png", "my dog", ours.text)
    work.change("b.png", "", "my cat")
    assert held(photos, "a.png") == Held("my dog", False)
    assert held(photos, "b.png") == Held("", False)
    # As after a kill: another server knows what is on disk.
    again = opened(photos, model)
    assert [row["caption"] for row in again.rows()][:2] == ["my dog", ""]
    assert [again.state(path) for path in again.paths()] == ["checked", "rejected", "written"]
    work.undo()
    work.undo()
    assert (held(photos, "a.png"), held(photos, "b.png")) == (ours, Held("my cat", False))


def test_a_change_counts_before_the_folder_has_been_read(photos: Path, model: captioner.Captioner) -> None:
    """As when the server was started again and the browser tells once more what it had told the one before."""
    work = Folder(str(photos), "xmp")
    work.change("a.png", "my dog", "a dog")
    assert held(photos, "a.png") == Held("my dog", False)
    while work.advance(model):
        pass
    assert held(photos, "a.png") == Held("my dog", False)
    assert work.row("a.png") == {"path": "a.png", "caption": "my dog", "author": "person"}


def test_what_another_program_wrote_stays_until_the_person_decides(photos: Path, model: captioner.Captioner) -> None:
    work = opened(photos, model)
    seen = work.found["a.png"]["caption"]
    Sidecars().write(str(photos / "a.png"), Entry("theirs", by_person=True))
    work.change("a.png", "mine", seen)
    assert held(photos, "a.png") == Held("theirs", False)
    assert work.refused == {"a.png": ("mine", "")}
    assert (work.row("a.png") or {})["caption"] == "theirs"
    work.change("a.png", "mine", "theirs")
    assert held(photos, "a.png") == Held("mine", False)
    assert not work.refused
    # Undo takes back nothing that another program wrote since.
    Sidecars().write(str(photos / "a.png"), Entry("theirs again", by_person=True))
    work.undo()
    assert held(photos, "a.png") == Held("theirs again", False)
    work.change("a.png", "theirs again", "theirs again")  # keep it
    assert not work.refused


def test_text_files_and_pictures_take_corrections(photos: Path, model: captioner.Captioner) -> None:
    pytest.importorskip("exiv2")
    for format in ("sidecar", "embed"):
        work = opened(photos, model, format)
        before = work.found["a.png"]["caption"]
        work.change("a.png", f"by {format}", before)
        assert (work.row("a.png") or {})["caption"] == f"by {format}", work.refused
        assert opened(photos, model, format).found["a.png"]["caption"] == f"by {format}"
    assert (photos / "a.txt").read_text() == "by sidecar\n"
    assert not list(photos.glob("*.xmp"))


def test_a_caption_file_counts_before_a_text_file(photos: Path, model: captioner.Captioner) -> None:
    (photos / "a.caption").write_text("My dog\n")
    (photos / "a.txt").write_text("dog, grass\n")
    work = opened(photos, model, "sidecar")
    assert work.found["a.png"]["caption"] == "My dog"
    work.change("a.png", "My old dog", "My dog")
    assert ((photos / "a.caption").read_text(), (photos / "a.txt").read_text()) == ("My old dog\n", "dog, grass\n")


def test_a_caption_file_is_corrected_where_it_is(photos: Path, model: captioner.Captioner) -> None:
    (photos / "a.caption").write_text("mine\n")
    work = opened(photos, model, "sidecar")
    work.change("a.png", "mine, too", "mine")
    assert (photos / "a.caption").read_text() == "mine, too\n"
    assert sorted(path.name for path in photos.glob("*.txt")) == ["b.txt"]


def test_no_path_leads_out_of_the_folder(photos: Path, model: captioner.Captioner, tmp_path: Path) -> None:
    draw_picture(4).save(tmp_path / "secret.png")
    (photos / "out.png").symlink_to(tmp_path / "secret.png")
    (photos / "in.png").symlink_to(photos / "more" / "c.png")
    work = opened(photos, model)
    assert work.paths() == ["a.png", "b.png", "in.png", "more/c.png"]
    assert set(work.previews) == set(work.paths())
    work.change("../secret.png", "x", "")
    assert not list(tmp_path.glob("*.xmp"))
    # A picture that becomes such a link is not shown either.
    (photos / "b.png").unlink()
    (photos / "b.png").symlink_to(tmp_path / "secret.png")
    work.previews.clear()
    work.advance(model)
    assert work.previews["a.png"].startswith("data:image/jpeg")
    assert not work.previews["b.png"]


def test_a_caption_that_cannot_be_written_is_told(photos: Path, model: captioner.Captioner) -> None:
    work = opened(photos, model)
    (photos / "a.png.xmp").write_text("no XMP")
    work.change("a.png", "mine", work.found["a.png"]["caption"])
    text, reason = work.refused["a.png"]
    assert text == "mine"
    assert reason.startswith("a.png.xmp: not XMP")
    broken = opened(photos, model)
    assert broken.state("a.png") == "failed"
    broken.change("a.png", "mine", "")
    assert broken.refused["a.png"][0] == "mine"


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures"):
        Folder(str(tmp_path), "xmp")
