"""The benchmark of training at COCO's size, with a few pictures: what it makes, and that its parts run."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from captioner.data.captions import read_captions
from captioner.data.splits import choose_split
from captioner.vocab import Vocabulary

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
SIZE = "2000"  # one part in so many: 59 pictures to learn from, and 2 to validate on


@pytest.fixture(scope="module")
def coco() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("coco_size")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def made(coco: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = coco.make_set(tmp_path_factory.mktemp("coco"), SIZE)
    return folder


def test_the_stand_in_is_laid_out_as_coco(made: Path) -> None:
    captions = read_captions(made / "captions_train2017.json")
    assert captions.form == "COCO captions JSON"
    assert len(captions.captions) == 61
    assert {len(texts) for texts in captions.captions.values()} == {5}
    assert all(len(name) == 16 and int(name[:12]) == captions.ids[name] for name in captions.captions)
    split = choose_split(captions, made / "train2017", made / "train.txt", made / "val.txt", 0)
    assert (len(split.train), len(split.validation)) == (59, 2)
    pictures = [path.read_bytes() for path in (made / "train2017").iterdir()]
    assert len(set(pictures)) == len(pictures) == 61
    content = json.loads((made / "captions_train2017.json").read_text())
    numbers = [each["image_id"] for each in content["annotations"]]
    assert numbers != sorted(numbers)


def test_its_captions_are_like_those_of_coco(coco: ModuleType) -> None:
    texts = [scene.caption() for number in range(400) for scene in [coco.Scene(number)] for _ in range(5)]
    vocabulary = Vocabulary.build(texts)
    lengths = sorted(len(vocabulary.encode(text)) for text in texts)
    assert 10 < sum(lengths) / len(lengths) < 12.5
    assert lengths[0] >= 5
    assert 20 < lengths[-1] < 60
    assert len(texts) / 2 < len(vocabulary) < len(texts)  # many are rare
    assert vocabulary.spellings == {}
    assert {"a", "the", "with"} <= set(vocabulary.words[:20])  # by which English is known
    assert coco.Scene(7).caption() == coco.Scene(7).caption()


def test_a_set_that_is_there_is_not_made_again(coco: ModuleType, made: Path) -> None:
    (made / "captions_train2017.json").touch()
    before = (made / "captions_train2017.json").stat().st_mtime_ns
    assert coco.make_set(made.parent, SIZE) == made
    assert (made / "captions_train2017.json").stat().st_mtime_ns == before


def test_a_curve_has_the_exponent_of_its_growth(coco: ModuleType) -> None:
    assert coco.exponents([3.0, 12.0, 192.0]) == pytest.approx([1.0, 2.0])
    found = {"check": [{"seconds": s, "cpu": s, "peak_mb": 9.0, "parts": {}} for s in (1.0, 4.0)]}
    assert coco.table(["4", "1"], found)[2] == "| check beyond reading pictures, s | 1.0 | 4.0 | 1.00 |"


@pytest.mark.slow
def test_every_part_runs_and_is_measured_once(coco: ModuleType, made: Path) -> None:
    tasks = ("check", "start", "resume", "whole")
    found = {task: [coco.measure(made.parent, task, SIZE, 2)] for task in tasks}
    assert [found[task][0]["status"] for task in tasks] == [0, 130, 130, 0]
    assert found["start"][0]["parts"]["features"][0] > 1
    assert found["resume"][0]["first"] > 0
    assert [name for name, _ in found["whole"][0]["peaks"]][-2:] == ["validating matching", "end"]
    assert coco.measure(made.parent, "check", SIZE, 2) == found["check"][0]
    lines = coco.table([SIZE], found)
    assert any(line.startswith("| whole: validation, cpu s |") for line in lines)
