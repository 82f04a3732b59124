"""Reading back the captions that files hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

import captioner
from bulk.test_library import of_a_person
from captioner.errors import OptionError
from captioner.evaluation.predictions import read_predictions
from captioner.metadata import embedded
from captioner.metadata.sidecars import Sidecars
from captioner.metadata.xmp import Entry
from captioner.options import MetadataOptions

Command: TypeAlias = Callable[..., tuple[int, str, str]]
needs_exiv2 = pytest.mark.skipif(not embedded.available(), reason="needs exiv2")
OURS = Entry("ours", "en", 0.5)


@pytest.fixture
def library(pictures: list[Path]) -> Path:
    """A folder of seven pictures whose captions are in all places."""
    Sidecars().write(str(pictures[0]), OURS)
    of_a_person(pictures[1], "xmp", "mine")
    of_a_person(pictures[2], "xmp", "")
    pictures[3].with_suffix(".txt").write_text("text\n\nsecond\n")
    Sidecars().write(str(pictures[3]), OURS)  # a person may have corrected the text
    of_a_person(pictures[4], "xmp", "mine, too")
    pictures[4].with_suffix(".caption").write_text("text")
    return pictures[0].parent


def test_a_persons_caption_comes_first_then_a_text_then_ours(library: Path, command: Command) -> None:
    status, output, errors = command("read", library, "-f", "jsonl")
    rows = [json.loads(line) for line in output.splitlines()]
    assert {Path(row.pop("path")).name: row for row in rows} == {
        "picture0.jpg": {"caption": "ours", "found": "xmp", "author": "captioner", "confidence": 0.5},
        "picture1.jpg": {"caption": "mine", "found": "xmp", "author": "person"},
        "picture2.jpg": {"caption": "", "found": "xmp", "author": "person"},
        "picture3.jpg": {"caption": "text", "found": "text", "alternatives": [{"caption": "second"}]},
        "picture4.jpg": {"caption": "mine, too", "found": "xmp", "author": "person"},
    }
    assert status == 0
    assert errors.splitlines()[-1] == "captioner: 5 of 7 pictures hold captions"


def test_paths_may_come_one_by_one(library: Path, tmp_path: Path) -> None:
    captioner.read_files(library.glob("*.jpg"), tmp_path / "held.csv", places=["xmp", "text"])
    assert (tmp_path / "held.csv").read_text(encoding="utf-8-sig").count("\n") == 6


def test_rows_that_stay_and_pictures_in_subfolders_are_said(library: Path, command: Command, tmp_path: Path) -> None:
    (library / "below").mkdir()
    (library / "picture6.jpg").rename(library / "below" / "picture6.jpg")
    given = ("read", library, "-o", tmp_path / "held.csv")
    said = command(*given)[2]
    assert said.startswith(f"captioner: note: 1 more picture in the subfolders of {library}: add recursive (-r)\n")
    assert "keeps its rows" not in said
    of_a_person(library / "picture0.jpg", "xmp", "corrected")
    assert "held.csv keeps its rows of 5 pictures: overwrite (--overwrite) renews them" in command(*given, "-r")[2]
    assert "keeps its rows" not in command(*given, "--overwrite")[2]
    assert "corrected" in (tmp_path / "held.csv").read_text()


@needs_exiv2
def test_each_place_can_be_read_alone(library: Path, command: Command) -> None:
    embedded.write(str(library / "picture0.jpg"), Entry("inside"), MetadataOptions())
    of_a_person(library / "picture3.jpg", "embed", "inside, by hand")

    def read(*places: str) -> dict[str, str]:
        arguments = (part for place in places for part in ("--from", place))
        lines = command("read", library, *arguments)[1].splitlines()
        return {Path(path).stem[-1]: text for path, _, text in (line.partition("\t") for line in lines)}

    assert read("embedded") == {"0": "inside", "3": "inside, by hand"}
    assert read("text") == {"3": "text\tsecond", "4": "text"}
    assert read("xmp", "embedded")["3"] == "inside, by hand"
    assert read() == {"0": "ours", "1": "mine", "2": "", "3": "inside, by hand", "4": "mine, too"}


@pytest.mark.parametrize("name", ["out.txt", "out.csv", "out.jsonl"])
def test_what_was_read_can_be_evaluated(name: str, library: Path, command: Command, tmp_path: Path) -> None:
    assert command("read", library, "-o", tmp_path / name)[0] == 0
    rows: dict[str, str] = {}
    for row in read_predictions(tmp_path / name):
        rows.setdefault(Path(str(row.picture)).name, row.caption)
    assert rows["picture1.jpg"] == "mine"
    assert rows["picture3.jpg"] == "text"
    before = (tmp_path / name).read_bytes()
    of_a_person(library / "picture5.jpg", "xmp", "late")
    command("read", library, "-o", tmp_path / name)
    after = (tmp_path / name).read_bytes()
    assert after.startswith(before)
    assert b"late" in after[len(before) :]


def test_what_cannot_be_read_is_named_and_the_others_are_shown(library: Path, command: Command) -> None:
    (library / "picture5.jpg.xmp").write_text("not xmp")
    status, output, errors = command("read", library, library / "missing.jpg")
    assert status == 1
    assert len(output.splitlines()) == 5
    assert "picture5.jpg.xmp: not XMP" in errors
    assert "missing.jpg: no such file" in errors


def test_without_the_library_pictures_are_left_out_and_it_is_said(
    library: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "available", lambda: False)
    status, output, errors = command("read", library)
    assert (status, len(output.splitlines())) == (0, 5)
    assert 'captions inside pictures are left out: to read them, pip install "captioner[metadata]"' in errors


def test_unknown_formats_and_places_are_refused(library: Path) -> None:
    with pytest.raises(OptionError, match="format must be of text, jsonl, csv, not 'coco'"):
        captioner.read_files(library, format="coco")
    with pytest.raises(OptionError, match="places must be of xmp, embedded, text, not 'exif'"):
        captioner.read_files(library, places=["exif"])
    with pytest.raises(OptionError, match="a picture on stdin has nothing beside it"):
        captioner.read_files("-", stdin=(library / "picture0.jpg").open("rb"))
