"""`evaluate` as Python calls it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from captioner.errors import DataError, OptionError
from captioner.evaluation.report import report
from captioner.evaluation.run import evaluate
from captioner.files import sha256_of
from captioner.inference.results import Caption, FileResult
from captioner.options import DecodeOptions


@dataclass
class Model:
    """Captions every picture with the same two words."""

    engine: str = "torch"
    precision: str = "float32"
    asked: list[str] = field(default_factory=list)
    loaded: int = 0

    def load(self) -> Model:
        self.loaded += 1
        return self

    def digest(self) -> str:
        return "0123456789abcdef"

    def caption_files(self, paths: Iterable[str], options: DecodeOptions | None = None) -> Iterator[FileResult]:
        for path in paths:
            self.asked.append(path)
            unreadable = "picture2" in path and not Path(path).stat().st_size
            caption = Caption("A dog", ("a", "dog"), (0.5, 0.25), 0.5, -2.0)
            yield FileResult(path, None, f"{path}: empty") if unreadable else FileResult(path, caption)


@pytest.fixture
def references(pictures: list[Path], tmp_path: Path) -> Path:
    file = tmp_path / "captions.txt"
    file.write_text("".join(f"{path.name}#{n}\t{text}\n" for path in pictures for n, text in enumerate(TEXTS)))
    return file


TEXTS = ("a dog", "the dog runs")


def test_a_model_captions_the_pictures(
    pictures: list[Path], references: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, said = Model(), list[str]()
    result = evaluate(references, images=pictures[0].parent, model=model, say=said.append)
    assert sorted(model.asked) == sorted(map(str, pictures))
    assert result.scores["images"] == 7
    assert result.words[pictures[0].name] == (("a", 0.5), ("dog", 0.25))
    assert result.files[pictures[0].name] == pictures[0]
    assert json.loads(result.to_json())["recipe"] == result.recipe
    page = "".join(report(result))
    assert '<span class="word" style="--p:0.250">dog<' in page
    assert "data:image/jpeg;base64," in page
    assert said == []
    assert capfd.readouterr() == ("", ""), "nothing is printed"


def test_a_model_may_compute_with_anything(pictures: list[Path], references: Path) -> None:
    recipe = evaluate(references, images=pictures[0].parent, model=Model(engine="abacus")).recipe
    assert "|engine:abacus|" in recipe
    assert "torch" not in recipe


def test_the_recipe_names_all_options_that_were_used(pictures: list[Path], references: Path) -> None:
    options = DecodeOptions(strategy="sample", temperature=0.5, seed=3)
    recipe = evaluate(references, images=pictures[0].parent, model=Model(), options=options).recipe
    parts = dict(part.split(":", 1) for part in recipe.split("|"))
    named = dict(option.split("=") for option in parts["decoding"].split(","))
    given = {name: value for name, value in options.used().items() if value not in (None, "")}
    assert named == {name: f"{value:g}" if type(value) is float else str(value) for name, value in given.items()}
    assert (parts["precision"], parts["engine"], parts["checkpoint"]) == ("float32", "torch", "0123456789ab")
    assert "torch" in parts


def test_a_model_is_loaded_once_and_only_for_pictures_that_are_there(pictures: list[Path], references: Path) -> None:
    model, folder = Model(), pictures[0].parent
    with pytest.raises(DataError, match="no such folder"):
        evaluate(references, images=folder / "nowhere", model=model.load)
    pictures[3].unlink()
    with pytest.raises(DataError, match=r"1 picture is not in the folder \(picture3\.jpg\)"):
        evaluate(references, images=folder, model=model.load)
    assert model.loaded == 0
    result = evaluate(references, images=folder, model=model.load, allow_missing=True)
    assert model.loaded == 1
    assert result.problems == {"no_picture": ["picture3.jpg"]}
    assert result.scores["images"] == 6


def test_pictures_that_cannot_be_read_are_told(pictures: list[Path], references: Path) -> None:
    pictures[2].write_bytes(b"")
    said: list[str] = []
    with pytest.raises(DataError, match=r"1 picture cannot be read \(picture2\.jpg\): name the pictures .* split_list"):
        evaluate(references, images=pictures[0].parent, model=Model(), say=said.append)
    assert said == [f"{pictures[2]}: empty"]
    result = evaluate(references, images=pictures[0].parent, model=Model(), allow_missing=True, say=said.append)
    assert said[1:] == [said[0], "warning: 1 picture cannot be read (picture2.jpg)"]
    assert "|unreadable:1|" in result.recipe


def test_predictions_need_no_model(pictures: list[Path], references: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("path,caption\n" + "".join(f"{path},the dog\n" for path in pictures))
    (tmp_path / "names.txt").write_text("picture1.jpg\npicture4.jpg\n")
    said: list[str] = []
    result = evaluate(str(references), predictions=str(file), split_list=tmp_path / "names.txt", say=said.append)
    assert [picture.caption for picture in result.pictures] == ["the dog"] * 2
    assert f"|predictions:{sha256_of(file)[:12]}|" in result.recipe
    assert "torch" not in result.recipe
    assert said == ["5 captions of pictures that are not evaluated"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, r"give images \(--images DIR\) and a model"),
        ({"images": "x"}, r"give images \(--images DIR\) and a model"),
        ({"model": Model()}, r"give images \(--images DIR\) and a model"),
        ({"predictions": "x", "model": Model()}, "leave out the model"),
        ({"predictions": "x", "options": DecodeOptions()}, "leave out the model"),
        ({"images": "x", "model": Model(), "coco_images": "y"}, r"coco_images \(--coco-images\) goes with predictions"),
        ({"predictions": "x", "tokens": "syllable"}, "tokens must be one of word, character, not 'syllable'"),
        ({"predictions": "x", "split": "val", "split_list": "y"}, "leave out one"),
    ],
)
def test_arguments_that_contradict_each_other(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        evaluate("no such file", **arguments)
