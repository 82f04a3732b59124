"""XMP sidecar files: both naming schemes, and what shares a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from captioner.errors import DataError
from captioner.metadata.sidecars import Sidecars
from captioner.metadata.xmp import Entry, Held
from metadata.programs import DIGIKAM, LIGHTROOM
from metadata.test_xmp import description, sidecar

ENTRY = Entry("A dog runs", "en")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """The path of a picture, of which only the name matters."""
    (tmp_path / "photo.jpg").touch()
    return str(tmp_path / "photo.jpg")


@pytest.mark.parametrize("name", ["photo.jpg.xmp", "photo.XMP", "photo.jpg.XMP"])
def test_while_folders_are_gone_through_they_are_listed_and_not_asked(
    picture: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ask for each file that is not there takes long for very many pictures."""
    isfile, asked, them = os.path.isfile, list[str](), Sidecars()
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(path) or isfile(path))
    (Path(picture).parent / name).write_bytes(sidecar(description("My dog")))
    with them.gone_through():
        for number in range(1000):
            assert them.held(f"{Path(picture).parent}/{number}.jpg") is None
        assert len(asked) < 100
        assert them.held(picture) == Held("My dog", False)
        (Path(picture).parent / "7.xmp").write_bytes(sidecar(description("My cat")))
    assert them.held(f"{Path(picture).parent}/7.jpg") == Held("My cat", False)


@pytest.mark.parametrize(
    ("there", "naming", "written"),
    [
        ((), "full", "photo.jpg.xmp"),
        ((), "stem", "photo.xmp"),
        (("photo.xmp",), "full", "photo.xmp"),
        (("photo.XMP",), "full", "photo.XMP"),
        (("photo.jpg.xmp",), "stem", "photo.jpg.xmp"),
        (("photo.jpg.XMP",), "stem", "photo.jpg.XMP"),
        (("photo.xmp", "photo.jpg.xmp"), "stem", "photo.jpg.xmp"),
        (("photo.NEF",), "stem", "photo.jpg.xmp"),
        (("photo.NEF", "photo.xmp"), "full", "photo.jpg.xmp"),
        (("photo.png", "photo.xmp"), "stem", "photo.jpg.xmp"),
        (("photo.txt", "photo.xmp"), "full", "photo.xmp"),
    ],
)
def test_a_caption_goes_where_one_is_or_where_the_name_is_not_shared(
    picture: str, there: tuple[str, ...], naming: str, written: str
) -> None:
    folder = Path(picture).parent
    for name in there:
        (folder / name).write_text(DIGIKAM if name.lower().endswith(".xmp") else "")
    before = {name: (folder / name).read_bytes() for name in there if name != written}
    Sidecars(naming).write(picture, ENTRY)
    assert {file.name for file in folder.iterdir()} == {"photo.jpg", written, *there}
    assert b"A dog runs" in (folder / written).read_bytes()
    assert (b"digiKam:ColorLabel" in (folder / written).read_bytes()) == (written in there)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert Sidecars(naming).held(picture) == Held("A dog runs", True)


def test_what_a_person_wrote_counts_wherever_it_is(picture: str) -> None:
    folder = Path(picture).parent
    Sidecars().write(picture, ENTRY)
    (folder / "photo.xmp").write_bytes(sidecar(description("My dog")))
    assert Sidecars().held(picture) == Held("My dog", False)
    (folder / "photo.nef").touch()
    assert Sidecars().held(picture) == Held("My dog", False)


def test_our_caption_of_another_picture_does_not_count(tmp_path: Path) -> None:
    for name in ("photo.jpg", "photo.png"):
        (tmp_path / name).touch()
    (tmp_path / "photo.xmp").write_text(LIGHTROOM)
    (tmp_path / "photo.png").unlink()
    Sidecars().write(str(tmp_path / "photo.jpg"), ENTRY)
    (tmp_path / "photo.png").touch()
    assert Sidecars().held(str(tmp_path / "photo.png")) is None


def test_an_empty_file_is_as_good_as_none(picture: str) -> None:
    Path(picture + ".xmp").touch()
    assert Sidecars().held(picture) is None
    Sidecars().write(picture, ENTRY)
    assert Sidecars().held(picture) == Held("A dog runs", True)


def test_a_damaged_sidecar_is_named_and_stays(picture: str) -> None:
    damaged = Path(picture + ".xmp")
    damaged.write_text(DIGIKAM[:900])
    with pytest.raises(DataError, match=r"photo\.jpg\.xmp: not XMP .*: mend it or move it away"):
        Sidecars().held(picture)
    with pytest.raises(DataError, match=r"photo\.jpg\.xmp: not XMP"):
        Sidecars().write(picture, ENTRY)
    assert damaged.read_text() == DIGIKAM[:900]


@pytest.mark.parametrize(
    ("names", "there", "naming", "files"),
    [
        ("photo.jpg photo.nef", "", "full", "photo.jpg.xmp photo.nef.xmp"),
        ("photo.jpg photo.nef", "", "stem", "photo.jpg.xmp photo.xmp"),
        ("photo.jpg photo.nef", "photo.xmp", "full", "photo.jpg.xmp photo.xmp"),
        ("photo.jpg photo.nef photo.dng", "", "stem", "photo.jpg.xmp photo.dng.xmp photo.nef.xmp"),
        ("photo.jpg photo.mov", "", "stem", "photo.jpg.xmp photo.mov.xmp"),
        ("photo.jpg photo.png", "", "stem", "photo.jpg.xmp"),
    ],
)
def test_files_that_show_the_same(picture: str, names: str, there: str, naming: str, files: str) -> None:
    folder = Path(picture).parent
    for name in names.split():
        (folder / name).touch()
    for name in there.split():
        (folder / name).write_text(LIGHTROOM)
    sidecars = Sidecars(naming)
    assert [sidecars.file(path).name for path in (picture, *sidecars.seconds(picture))] == files.split()
    assert not any(map(sidecars.seconds, sidecars.seconds(picture)))


def test_what_a_person_wrote_of_a_raw_file_counts_for_its_jpeg_and_the_other_way_round(picture: str) -> None:
    raw = str(Path(picture).with_suffix(".nef"))
    Path(raw).touch()
    Sidecars().write(raw, ENTRY)
    assert Sidecars().held(picture) is None
    Path(raw + ".xmp").write_bytes(sidecar(description("My dog")))
    assert Sidecars().held(picture) == Held("My dog", False)
    Path(raw + ".xmp").rename(picture + ".xmp")
    assert Sidecars().held(raw) == Held("My dog", False)
