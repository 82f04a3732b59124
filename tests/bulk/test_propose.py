"""The pictures to caption next: unsure ones, of all kinds, and none that a person has captioned."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

import captioner
from captioner.bulk.propose import spread
from captioner.errors import InputError, OptionError
from captioner.inference.captioner import Captioner, load
from captioner.metadata.sidecars import Sidecars
from captioner.metadata.xmp import Entry


@pytest.fixture(scope="module")
def model(tiny_checkpoint_file: Path) -> Captioner:
    return load(tiny_checkpoint_file)


def test_it_picks_from_all_clusters_and_prefers_the_unsure() -> None:
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(6, 16))
    features = (centres.repeat(50, 0) + 0.1 * rng.normal(size=(300, 16))).astype(np.float32)
    weights = rng.random(300)
    chosen = spread(features, weights.tolist(), 6)
    assert {place // 50 for place in chosen} == set(range(6))
    assert weights[chosen].mean() > 0.9
    assert chosen[0] == int(weights.argmax())
    assert spread(features, weights.tolist(), 20)[:6] == chosen


def test_equal_pictures_are_each_chosen_once() -> None:
    assert sorted(spread(np.zeros((4, 8), np.float32), [0.5] * 4, 9)) == [0, 1, 2, 3]
    assert spread(np.zeros((1, 8), np.float32), [0.0], 1) == [0]


def test_captions_of_people_are_left_out_and_files_are_added_to(
    model: Captioner, pictures: list[Path], tmp_path: Path
) -> None:
    Sidecars().write(str(pictures[0]), Entry("My dog", by_person=True))
    Sidecars().write(str(pictures[1]), Entry("Ours", "en", 0.5))
    pictures[2].with_suffix(".txt").write_text("Somebody's")
    pictures[3].write_bytes(b"broken")
    said: list[str] = []
    file = tmp_path / "next.csv"
    found = captioner.propose(pictures[0].parent, file, number=2, model=model, say=said.append)
    assert len(said) == 1
    assert "picture3.jpg" in said[0]
    rows = list(csv.DictReader(file.open(encoding="utf-8-sig")))
    assert rows == [{name: row[name] for name in ("path", "caption")} for row in found]
    assert len(rows) == 2
    before = file.read_bytes()
    more = captioner.propose(pictures[0].parent, file, model=model)
    assert file.read_bytes().startswith(before)
    names = {Path(row["path"]).name for row in (*found, *more)}
    assert names == {f"picture{number}.jpg" for number in (1, 4, 5, 6)}
    assert len(captioner.propose(pictures[0].parent, everything=True, model=model)) == 6


def test_folders_are_listed_once_and_not_for_each_picture(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, listdir = list[str](), os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(str(path)) or listdir(path))
    for picture in pictures:
        picture.with_suffix(".txt").write_text("Mine")
    with pytest.raises(InputError, match="captions of people"):
        captioner.propose(pictures[0].parent)
    assert listed.count(str(pictures[0].parent)) == 1


def test_nothing_to_choose_is_said_before_a_model_is_loaded(pictures: list[Path]) -> None:
    for picture in pictures:
        picture.with_suffix(".txt").write_text("Mine")
    with pytest.raises(InputError, match="all others have captions of people"):
        captioner.propose(pictures[0].parent, model=lambda: pytest.fail("loaded"))
    with pytest.raises(OptionError):
        captioner.propose(pictures[0].parent, number=0)
    with pytest.raises(OptionError, match=r"ends in \.csv"):
        captioner.propose(pictures[0].parent, "next.jsonl", everything=True)
