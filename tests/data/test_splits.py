"""Captions and split lists become examples, or an error that says what to mend."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from captioner.data.captions import CaptionSet, read_captions
from captioner.data.splits import (
    Split,
    choose_split,
    find_examples,
    names_of_split,
    present_files,
    random_split,
    read_split_list,
    same_content,
)
from captioner.errors import DataError, OptionError


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


class TestSplitList:
    @pytest.mark.parametrize("content", ["b.jpg\na.jpg\n", "\ufeffb.jpg\r\n\r\n  a.jpg  \r\nb.jpg"])
    def test_each_name_comes_once_in_the_order_of_the_file(self, content: str, tmp_path: Path) -> None:
        assert read_split_list(written(tmp_path / "list", content)) == ["b.jpg", "a.jpg"]

    @pytest.mark.parametrize("name", ["missing.txt", "."])
    def test_a_file_that_is_not_there(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such split list"):
            read_split_list(tmp_path / name)

    def test_an_empty_list_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="the split list is empty"):
            read_split_list(written(tmp_path / "list", "\n \n"))


class TestFindingPictures:
    def test_examples_have_picture_and_captions_in_the_order_of_the_names(self, pictures: list[Path]) -> None:
        captions = {path.name: [f"one of {path.name}", "two"] for path in pictures}
        names = [pictures[2].name, pictures[0].name]
        examples = find_examples(captions, pictures[0].parent, names)
        assert [(e.name, e.path, e.captions) for e in examples] == [
            (path.name, path, (f"one of {path.name}", "two")) for path in (pictures[2], pictures[0])
        ]

    @pytest.mark.parametrize(
        ("missing", "message"),
        [
            (1, r"1 of 8 pictures not in .*: lost0\.jpg$"),
            (9, r"9 of 16 .*: lost0\.jpg, lost1\.jpg, lost2\.jpg, \."),
        ],
    )
    def test_missing_pictures_are_counted_and_some_named(
        self, missing: int, message: str, pictures: list[Path]
    ) -> None:
        names = [path.name for path in pictures] + [f"lost{number}.jpg" for number in range(missing)]
        with pytest.raises(DataError, match=message) as caught:
            find_examples({name: ["one"] for name in names}, pictures[0].parent, names)
        assert "lost3" not in str(caught.value)

    def test_pictures_without_captions_are_counted_and_some_named(self, pictures: list[Path]) -> None:
        names = [path.name for path in pictures]
        with pytest.raises(DataError, match=r"6 of 7 pictures without captions: picture1\.jpg, .*, \.\.\.$"):
            find_examples({names[0]: ["one"]}, pictures[0].parent, names)

    def test_present_names_are_the_captioned_pictures_in_the_folder(self, pictures: list[Path]) -> None:
        captions = {name: ["one"] for name in ("picture3.jpg", "lost.jpg", "picture1.jpg")}
        assert list(present_files(captions, pictures[0].parent)) == ["picture3.jpg", "picture1.jpg"]

    def test_no_captioned_picture_in_the_folder(self, pictures: list[Path]) -> None:
        with pytest.raises(DataError, match=r"holds none of the 2 captioned pictures: missing 2 of 2, such as x"):
            present_files({"x.jpg": ["one"], "y.jpg": ["two"]}, pictures[0].parent)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        captions = {"x.jpg": ["one"]}
        with pytest.raises(DataError, match="no such folder of pictures"):
            present_files(captions, tmp_path / "nowhere")
        with pytest.raises(DataError, match="no such folder of pictures"):
            find_examples(captions, tmp_path / "nowhere", captions)


class TestRandomSplit:
    @pytest.mark.parametrize(("pictures", "held_out"), [(2, 1), (3, 1), (9, 1), (10, 1), (26, 3), (1000, 100)])
    def test_a_tenth_but_at_least_one_is_held_out_and_none_is_in_both(self, pictures: int, held_out: int) -> None:
        names = [f"{number}.jpg" for number in range(pictures)]
        train, validation = random_split(names, seed=0)
        assert len(validation) == held_out
        assert sorted(train + validation) == sorted(names)

    def test_the_seed_decides_not_the_order_of_the_names(self) -> None:
        names = [f"{number}.jpg" for number in range(100)]
        assert random_split(names, seed=1) == random_split(names[::-1], seed=1)
        assert random_split(names, seed=1) != random_split(names, seed=2)

    def test_a_name_given_twice_is_one_picture(self) -> None:
        names = [f"{number}.jpg" for number in range(20)]
        assert random_split(names + names, seed=0) == random_split(names, seed=0)

    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_neither_part_is_ever_empty(self, share: float) -> None:
        assert all(random_split(["a", "b", "c"], 0, share))

    def test_one_picture_cannot_be_split(self) -> None:
        with pytest.raises(DataError, match=r"at least 2 captioned pictures are needed.* there are 1"):
            random_split(["a.jpg"], seed=0)


def captions_of(pictures: list[Path], splits: dict[str, str] | None = None) -> CaptionSet:
    """A captions file of the pictures, two each, read."""
    rows = [
        {"file_name": path.name, "caption": [f"one of {path.name}", "two"], "split": (splits or {}).get(path.name, "")}
        for path in pictures
    ]
    file = pictures[0].parent / "captions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_captions(file)


def names_in(split: Split) -> tuple[list[str], list[str]]:
    return [example.name for example in split.train], [example.name for example in split.validation]


class TestChoosingASplit:
    def test_lists_decide(self, pictures: list[Path], tmp_path: Path) -> None:
        captions = captions_of(pictures, {"picture0.jpg": "val"})
        (tmp_path / "t").write_text("picture0.jpg\npicture1.jpg\n")
        (tmp_path / "v").write_text("picture2.jpg\n")
        split = choose_split(captions, pictures[0].parent, tmp_path / "t", tmp_path / "v", seed=0)
        assert names_in(split) == (["picture0.jpg", "picture1.jpg"], ["picture2.jpg"])
        assert split.origin["split"] == {"train_list": "t", "val_list": "v"}
        assert split.notes == []

    def test_a_picture_in_both_lists_is_refused(self, pictures: list[Path], tmp_path: Path) -> None:
        (tmp_path / "t").write_text("picture0.jpg\npicture1.jpg\n")
        with pytest.raises(DataError, match=r"2 pictures in both split lists, such as picture0\.jpg"):
            choose_split(captions_of(pictures), pictures[0].parent, tmp_path / "t", tmp_path / "t", seed=0)

    def test_a_list_to_validate_on_needs_one_to_learn_from(self, pictures: list[Path], tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r"val_list \(--val-list\) needs train_list \(--train-list\)"):
            choose_split(captions_of(pictures), pictures[0].parent, None, tmp_path / "v", seed=0)

    def test_a_listed_picture_must_be_there(self, pictures: list[Path], tmp_path: Path) -> None:
        captions = captions_of(pictures)
        pictures[1].unlink()
        (tmp_path / "t").write_text("picture0.jpg\npicture1.jpg\npicture2.jpg\n")
        with pytest.raises(DataError, match=r"1 of [23] pictures not in .*: picture1\.jpg"):
            choose_split(captions, pictures[0].parent, tmp_path / "t", None, seed=0)

    def test_the_splits_in_the_file_decide_where_no_lists_do(self, pictures: list[Path]) -> None:
        splits = {"picture0.jpg": "train", "picture1.jpg": "restval", "picture2.jpg": "val", "picture3.jpg": "test"}
        split = choose_split(captions_of(pictures, splits), pictures[0].parent, None, None, seed=0)
        assert names_in(split) == (["picture0.jpg", "picture1.jpg"], ["picture2.jpg"])
        assert split.origin["split"] == {"field": "split"}

    def test_a_file_with_nothing_to_validate_on_has_a_part_of_train_held_out(self, pictures: list[Path]) -> None:
        splits = {f"picture{number}.jpg": "train" for number in range(3)}
        split = choose_split(captions_of(pictures, splits), pictures[0].parent, None, None, seed=0)
        assert sorted({*names_in(split)[0], *names_in(split)[1]}) == sorted(splits)
        assert split.origin["split"] == {"field": "split", "seed": 0, "validation": names_in(split)[1]}

    def test_a_random_split_is_written_down(self, pictures: list[Path]) -> None:
        captions, folder = captions_of(pictures), pictures[0].parent
        split = choose_split(captions, folder, None, None, seed=3)
        assert json.loads(json.dumps(split.origin))["split"] == {"seed": 3, "validation": names_in(split)[1]}
        assert split == choose_split(captions, folder, None, None, seed=3)
        others = {tuple(names_in(choose_split(captions, folder, None, None, seed=seed))[1]) for seed in range(9)}
        assert len(others) > 1

    def test_the_origin_says_what_was_read(self, pictures: list[Path]) -> None:
        origin = choose_split(captions_of(pictures), pictures[0].parent, None, None, seed=0).origin
        assert len(origin.pop("sha256")) == 64
        assert origin.pop("split")
        assert origin == {
            "captions": "captions.jsonl",
            "form": "JSON lines",
            "train_pictures": 6,
            "validation_pictures": 1,
            "train_captions": 12,
            "validation_captions": 2,
            "missing_pictures": 0,
        }

    def test_a_folder_of_texts_has_a_hash_too(self, pictures: list[Path]) -> None:
        for path in pictures:
            path.with_suffix(".txt").write_text("a dog\n")
        folder = pictures[0].parent
        first = choose_split(read_captions(folder), folder, None, None, seed=0).origin["sha256"]
        pictures[3].with_suffix(".txt").write_text("a cat\n")
        assert choose_split(read_captions(folder), folder, None, None, seed=0).origin["sha256"] != first

    def test_missing_pictures_and_empty_captions_are_passed_over_and_told(self, pictures: list[Path]) -> None:
        folder = pictures[0].parent
        file = folder / "c.csv"
        file.write_text("image,caption\n" + "".join(f"{path.name},a dog\n{path.name},\n" for path in pictures))
        pictures[2].unlink()
        split = choose_split(read_captions(file), folder, None, None, seed=0)
        assert len(split.train) + len(split.validation) == 6
        assert split.notes == [
            "left out: 7 empty captions",
            f"left out: 1 of 7 captioned pictures, not in {folder}: picture2.jpg",
        ]

    def test_no_picture_at_all(self, pictures: list[Path], tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="holds none of the 7 captioned pictures"):
            choose_split(captions_of(pictures), tmp_path / "empty", None, None, seed=0)

    def test_a_split_that_the_file_does_not_have(self, pictures: list[Path]) -> None:
        captions = captions_of(pictures, {"picture0.jpg": "train", "picture1.jpg": "train", "picture2.jpg": "test"})
        assert names_of_split(captions, "test") == ["picture2.jpg"]
        with pytest.raises(DataError, match=r"belongs to 'val'; the splits are train \(2\), test \(1\)"):
            names_of_split(captions, "val")
        with pytest.raises(DataError, match=r"belongs to 'val': JSON lines, without splits"):
            names_of_split(captions_of(pictures), "val")


class TestTheSamePictureTwice:
    def test_pairs_across_the_split_are_found_by_content(self, pictures: list[Path], tmp_path: Path) -> None:
        folder = pictures[0].parent
        shutil.copy(pictures[0], folder / "copy.jpg")
        shutil.copy(pictures[1], folder / "other.jpg")
        captions = captions_of([*pictures, folder / "copy.jpg", folder / "other.jpg"])
        (tmp_path / "t").write_text("picture0.jpg\npicture1.jpg\npicture2.jpg\nother.jpg\n")
        (tmp_path / "v").write_text("copy.jpg\npicture3.jpg\n")
        split = choose_split(captions, folder, tmp_path / "t", tmp_path / "v", seed=0)
        assert same_content(split) == [("picture0.jpg", "copy.jpg")], "other.jpg is in train, like its twin"

    def test_the_same_size_is_not_the_same_content(self, tmp_path: Path) -> None:
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / name).write_bytes(name.encode() * 10)
        file = tmp_path / "c.csv"
        file.write_text("image,caption\na.jpg,one\nb.jpg,two\n")
        assert same_content(choose_split(read_captions(file), tmp_path, None, None, seed=0)) == []
