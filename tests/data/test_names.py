"""Which name means which picture: by path, by the end of a path, by COCO number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from captioner.data import names
from captioner.data.names import KnownPictures, find_files, image_id, read_image_ids
from captioner.errors import CaptionerError, DataError


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("COCO_val2014_000000000042.jpg", 42),
        ("photos/val2014/COCO_val2014_000000391895.jpg", 391895),
        ("000000000042.jpg", 42),
        ("42.png", 42),
        ("some_folder/7.jpeg", 7),
        ("7", 7),
    ],
)
def test_the_file_name_gives_the_number(path: str, number: int) -> None:
    assert image_id(path, None) == number


@pytest.mark.parametrize(
    "path", ["dog.jpg", "dog42.jpg", "42_dog.jpg", "1000268201_693b08cb0e.jpg", "42/dog.jpg", "٤٢.jpg"]
)
def test_a_name_without_a_number_says_what_to_give(path: str) -> None:
    with pytest.raises(DataError, match=r"give coco_images \(--coco-images FILE\)") as caught:
        image_id(path, None)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, CaptionerError)


def test_a_list_of_pictures_goes_before_the_file_name() -> None:
    ids = {"dog.jpg": 5, "42.jpg": 6, "b/dog.jpg": 7}
    assert image_id("dog.jpg", ids) == 5
    assert image_id("a/dog.jpg", ids) == 5
    assert image_id("a/b/dog.jpg", ids) == 7, "the longest end of the path decides"
    assert image_id("photos/42.jpg", ids) == 6
    with pytest.raises(DataError, match=r"43\.jpg: not among the 3 pictures"):
        image_id("43.jpg", ids)


def test_reads_the_ids_of_an_annotation_file(tmp_path: Path) -> None:
    file = tmp_path / "annotations.json"
    images = [{"id": 3, "file_name": "c.jpg", "height": 4}, {"id": 1, "file_name": "ä/b.jpg"}]
    file.write_text(json.dumps({"images": images, "annotations": []}), encoding="utf-8-sig")
    assert read_image_ids(file) == {"c.jpg": 3, "ä/b.jpg": 1}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "the file is empty"),
        ("\n", "the file is empty"),
        ("PK\x03\x04", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ("[]", "has no list 'images'"),
        ('{"images": []}', "has no list 'images'"),
        ('{"images": {"id": 1}}', "has no list 'images'"),
        ('{"images": [1]}', "entry 1 of 'images' needs an 'id'"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 2}]}', "entry 2 of 'images' needs"),
        ('{"images": [{"id": "1", "file_name": "a.jpg"}]}', "a whole number"),
        ('{"images": [{"id": true, "file_name": "a.jpg"}]}', "a whole number"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]}', "a has the ids 1 and 2"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}', "id 1 stands for a and b"),
    ],
)
def test_a_wrong_file_gets_one_clear_line(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "images.json"
    file.write_text(content)
    with pytest.raises(DataError) as caught:
        read_image_ids(file)
    assert complaint in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "images.json"
    file.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match="not a JSON file"):
        read_image_ids(file)


class TestFindingFiles:
    def test_folders_in_front_of_a_name_need_not_be_there(self, pictures: list[Path]) -> None:
        folder = pictures[0].parent
        names = ["val2014/picture1.jpg", "photos\\picture2.jpg", "picture3.jpg", "lost.jpg", "x/"]
        assert find_files(names, folder) == {name: folder / f"picture{n}.jpg" for n, name in enumerate(names[:3], 1)}

    def test_any_of_them_need_not_be_there(self, pictures: list[Path]) -> None:
        folder = pictures[0].parent
        assert find_files(["coco/pictures/picture1.jpg"], folder.parent) == {
            "coco/pictures/picture1.jpg": folder.parent / folder.name / "picture1.jpg"
        }, "the longest end that is a file"

    def test_unless_two_names_end_alike(self, pictures: list[Path]) -> None:
        assert find_files(["a/picture1.jpg", "b/picture1.jpg"], pictures[0].parent) == {}

    def test_folders_that_are_there_count(self, pictures: list[Path]) -> None:
        folder = pictures[0].parent
        (folder / "a").mkdir()
        shutil.copy(pictures[2], folder / "a/picture1.jpg")
        names = ["a/picture1.jpg", "picture1.jpg"]
        assert find_files(names, folder) == {name: folder / name for name in names}


class TestKnownPictures:
    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("x/a.jpg", "x/a.jpg"),
            ("photos/x/a.jpg", "x/a.jpg"),
            ("/photos/x/a.jpg", "x/a.jpg"),
            ("./x/a.jpg", "x/a.jpg"),
            ("photos\\x\\a.jpg", "x/a.jpg"),
            ("b.jpg", "y/b.jpg"),
            ("z/b.jpg", None),
            ("a.jpeg", None),
            ("", None),
        ],
    )
    def test_one_is_the_end_of_the_other(self, path: str, name: str | None) -> None:
        assert KnownPictures(["x/a.jpg", "y/b.jpg"]).named(path) == name

    def test_the_names_may_be_absolute(self) -> None:
        assert KnownPictures(["/data/a.jpg"]).named("/data/a.jpg") == "/data/a.jpg"
        assert KnownPictures(["/data/a.jpg"]).named("a.jpg") == "/data/a.jpg"
        assert KnownPictures(["./x/a.jpg"]).named("photos/x/a.jpg") == "./x/a.jpg", "nor does the dot count"

    def test_a_name_is_found_as_it_is_written(self) -> None:
        names = ["a.jpg", "./a.jpg"]
        assert [KnownPictures(names).named(name) for name in names] == names

    def test_numbers_are_looked_up_when_they_are_needed(self) -> None:
        pictures = KnownPictures(["dog.jpg"])
        assert pictures.named("dog.jpg") == "dog.jpg", "which has no number"
        with pytest.raises(DataError, match="no COCO number in this file name"):
            pictures.numbered(1)


def test_a_name_is_taken_apart_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred thousand names, each time takes a second."""
    taken: list[str] = []
    plain = names._ends
    monkeypatch.setattr(names, "_ends", lambda path: taken.append(path) or plain(path))
    pictures = KnownPictures(["x/a.jpg", "b.jpg"])
    assert taken == ["x/a.jpg", "b.jpg"]
    assert pictures.named("x/a.jpg") == "x/a.jpg"
    assert len(taken) == 2  # it is there as it is written
