"""Predictions of any captioner: reading them, and finding their pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captioner.errors import CaptionerError, DataError
from captioner.evaluation.predictions import Prediction, match, read_predictions

TWO = (("a", "a red bus, parked, outside"), ("b", "a dog"))


def written(tmp_path: Path, content: str | bytes, name: str = "predictions") -> Path:
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_reads_coco_results(tmp_path: Path) -> None:
    rows = [{"image_id": 42, "caption": "a dog"}, {"image_id": "7", "caption": "ä", "score": 1}]
    file = written(tmp_path, "\ufeff \n" + json.dumps(rows, indent=1))
    assert read_predictions(file) == [Prediction(42, "a dog"), Prediction(7, "ä")]


def test_reads_jsonl_with_probabilities(tmp_path: Path) -> None:
    rows = [
        {"path": "x/a.jpg", "caption": "A dog", "words": [{"word": "a", "probability": 0.5}]},
        {"path": "b.jpg", "caption": "A cat", "words": "not ours"},
        {"path": "c.jpg", "error": "not a picture"},
    ]
    file = written(tmp_path, "\n".join(map(json.dumps, rows)) + "\r\n\n")
    assert read_predictions(file) == [Prediction("x/a.jpg", "A dog", (("a", 0.5),)), Prediction("b.jpg", "A cat")]


def test_reads_csv(tmp_path: Path) -> None:
    file = written(tmp_path, 'logprob,path,caption\r\n-1,"a,b.jpg","A ""big""\ndog"\r\n-2,c.jpg,\r\n', "p.txt")
    assert read_predictions(file) == [Prediction("a,b.jpg", 'A "big"\ndog'), Prediction("c.jpg", "")]


@pytest.mark.parametrize(
    "content",
    [
        "path,caption\na.jpg,a red bus, parked, outside\nb.jpg,a dog\n",
        "a.jpg\ta red bus, parked, outside\nb.jpg\ta dog\n",  # what `captioner caption` prints
        "a.jpg,a red bus, parked, outside\nb.jpg,a dog\n",
        'image,prompt\na.jpg,"a red bus, parked, outside"\nb.jpg,<start> a dog <end>\n',
        json.dumps(
            [{"path": f"{name}.jpg", "caption": text} for name, text in TWO] + [{"path": "c.jpg", "error": "no"}]
        ),
        json.dumps({"a.jpg": TWO[0][1], "b.jpg": "a dog"}),
        "a.jpg#0\ta red bus, parked, outside\nb.jpg#0\ta dog\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_predictions_come_in_every_layout_of_captions(tmp_path: Path, content: str, encoding: str) -> None:
    found = read_predictions(written(tmp_path, content.encode(encoding)))
    assert found == [Prediction(f"{name}.jpg", text) for name, text in TWO]


def test_predictions_beside_pictures(pictures: list[Path]) -> None:
    pictures[0].with_suffix(".caption").write_text("a dog\n")
    assert read_predictions(pictures[0].parent) == [Prediction("picture0.jpg", "a dog")]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "not a text file in UTF-8"),
        ("[", "neither JSON nor JSON lines"),
        ("[" * 100_000, "neither JSON nor JSON lines"),
        ("[]", "holds no captions"),
        ("[1]", "entry 1 needs a picture's name"),
        ('[{"image_id": 1, "caption": "a"}, {"id": 1, "caption": "a"}]', "entry 2 needs a picture's name"),
        ('[{"image_id": true, "caption": "a"}]', "in predictions also 'image_id'"),
        ('[{"image_id": 1, "caption": 7}]', "a caption or a list of them"),
        ('{"path": "a.jpg", "caption": "a"}\n{"path"', "line 2 is not JSON"),
        ('{"dog": "a.jpg", "caption": "a"}', "line 1 needs a picture's name"),
        ('{"images": [], "annotations": []}', "holds no captions"),
        ('{"path": "a.jpg", "error": "damaged"}', "holds no captions"),
        ("hello", "captions in no known layout: the first line is 'hello'"),
        ("path,caption", "holds no captions"),
        ("path,caption\na.jpg", "line 2 has fewer columns"),
    ],
)
def test_a_wrong_file_gets_one_clear_line(tmp_path: Path, content: str | bytes, complaint: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_predictions(file)
    assert complaint in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, CaptionerError)


def test_a_path_fits_a_name_when_one_is_the_end_of_the_other() -> None:
    names = ["a.jpg", "x/b.jpg", "y/c.jpg", "d.jpg"]
    paths = ["/data/pictures/a.jpg", "b.jpg", "other/c.jpg", "./d.jpg", "unknown.jpg"]
    matched, repeated, unknown = match([Prediction(path, path) for path in paths], names)
    assert {name: prediction.picture for name, prediction in matched.items()} == {
        "a.jpg": "/data/pictures/a.jpg",
        "x/b.jpg": "b.jpg",
        "d.jpg": "./d.jpg",
    }
    assert unknown == ["other/c.jpg", "unknown.jpg"], "other/c.jpg is not y/c.jpg"
    assert repeated == []


def test_the_same_base_name_in_two_folders() -> None:
    names = ["x/a.jpg", "y/a.jpg"]
    exact, *_ = match([Prediction("y/a.jpg", "why"), Prediction("/p/x/a.jpg", "ex")], names)
    assert {name: prediction.caption for name, prediction in exact.items()} == {
        "y/a.jpg": "why",
        "x/a.jpg": "ex",
    }
    with pytest.raises(DataError, match=r"^a\.jpg may be x/a\.jpg or y/a\.jpg: write the path as"):
        match([Prediction("a.jpg", "which?")], names)
    # A name that is the whole path wins over one that only ends with it.
    assert list(match([Prediction("a.jpg", "it")], ["a.jpg", "x/a.jpg"])[0]) == ["a.jpg"]


def test_several_captions_for_a_picture_are_told() -> None:
    predictions = [Prediction("p/a.jpg", "first"), Prediction("q/a.jpg", "second"), Prediction("r/a.jpg", "third")]
    matched, repeated, _ = match(predictions, ["a.jpg"])
    assert matched["a.jpg"].caption == "first"
    assert repeated == ["a.jpg"]
    assert match([Prediction("a.jpg", "same"), Prediction("a.jpg", "same")], ["a.jpg"])[1] == ["a.jpg"]


def test_the_references_ids_go_before_numbers_in_names() -> None:
    ids: dict[str, int | str] = {"12.jpg": 13, "13.jpg": 12, "14.jpg": 0, "15.jpg": "coco_7"}
    predictions = [Prediction(12, "a"), Prediction(13, "b"), Prediction(0, "c"), Prediction("coco_7", "d")]
    matched, repeated, unknown = match([*predictions, Prediction(14, "e"), Prediction("x/12.jpg", "f")], list(ids), ids)
    assert {name: one.caption for name, one in matched.items()} == {
        "13.jpg": "a",
        "12.jpg": "b",
        "14.jpg": "c",
        "15.jpg": "d",
    }
    assert (unknown, repeated) == (["14"], ["12.jpg"])


def test_coco_numbers_stand_in_the_file_names() -> None:
    names = ["val2014/COCO_val2014_000000000042.jpg", "7.jpg"]
    matched, _, unknown = match([Prediction(42, "a"), Prediction(7, "b"), Prediction(8, "c")], names)
    assert {name: prediction.caption for name, prediction in matched.items()} == {
        names[0]: "a",
        names[1]: "b",
    }
    assert unknown == ["8"]


def test_coco_numbers_from_a_list() -> None:
    names = ["dog.jpg", "cat.jpg", "not listed.jpg"]
    matched, *_ = match([Prediction(1, "a cat")], names, {"cat.jpg": 1, "dog.jpg": 2})
    assert list(matched) == ["cat.jpg"]
    with pytest.raises(DataError, match="not among the 1 pictures"):
        match([Prediction(1, "a cat")], names, {"bird.jpg": 1})


def test_names_without_numbers_say_what_to_give() -> None:
    with pytest.raises(DataError, match=r"give coco_images \(--coco-images FILE\)"):
        match([Prediction(1, "a")], ["1.jpg", "dog.jpg"])
    with pytest.raises(
        DataError, match=r"a_1\.jpg and b_1\.jpg have the same COCO number, 1: give coco_images \(--coco-images"
    ):
        match([Prediction(1, "a")], ["a_1.jpg", "b_1.jpg"])


def test_halves_of_characters_are_replaced(tmp_path: Path) -> None:
    """JSON can hold them, and no file can: the report could not be written."""
    rows = [{"path": "a.jpg", "caption": "a \ud83d dog", "words": [{"word": "\ud83d", "probability": 0.5}]}]
    (prediction,) = read_predictions(written(tmp_path, json.dumps(rows[0]) + "\n"))
    assert prediction.caption == "a \ufffd dog"
    assert prediction.words == (("\ufffd", 0.5),)


@pytest.mark.parametrize("probability", [10**400, float("nan"), float("inf"), -0.1, 1.5])
def test_impossible_probabilities_are_none(tmp_path: Path, probability: float) -> None:
    row = {"path": "a.jpg", "caption": "a", "words": [{"word": "a", "probability": probability}]}
    assert read_predictions(written(tmp_path, json.dumps(row))) == [Prediction("a.jpg", "a")]
