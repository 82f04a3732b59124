"""Captions files and split lists become examples, or an error that says what to mend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from captioner.data import (
    DataError,
    find_examples,
    present_names,
    random_split,
    read_captions,
    read_split_list,
)
from captioner.errors import UserError


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


class TestCaptionsFile:
    def test_captions_come_by_picture_in_the_order_of_the_file(self, tmp_path: Path) -> None:
        file = written(tmp_path / "t", "b.jpg#0\tA dog .\na.jpg#0\tA cat .\nb.jpg#1\tThe dog runs .\n")
        captions = read_captions(file)
        assert captions == {"b.jpg": ["A dog .", "The dog runs ."], "a.jpg": ["A cat ."]}
        assert list(captions) == ["b.jpg", "a.jpg"]

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("a.jpg#0\tone\r\na.jpg#1\ttwo\r\n", {"a.jpg": ["one", "two"]}),
            (b"\xef\xbb\xbfa.jpg#0\tone\n", {"a.jpg": ["one"]}),
            ("a.jpg#0\tone", {"a.jpg": ["one"]}),
            ("\n\na.jpg#0\tone\n  \n\n", {"a.jpg": ["one"]}),
            ("a.jpg#0\tone\ttwo #3\tthree\n", {"a.jpg": ["one\ttwo #3\tthree"]}),
            ("my #1 dog#2.jpg#0\tone\n", {"my #1 dog#2.jpg": ["one"]}),
            ("sub folder/ä.jpg#12\t  one  \n", {"sub folder/ä.jpg": ["one"]}),
            ("a.jpg#0\tone\u2028two\x0bthree\x85four\nb.jpg#0\tfive\n", None),
        ],
        ids=["CRLF", "BOM", "no last line end", "empty lines", "tabs", "# in names", "spaces", "odd line ends"],
    )
    def test_what_files_of_the_wild_look_like(
        self, content: str | bytes, expected: dict[str, list[str]] | None, tmp_path: Path
    ) -> None:
        if expected is None:  # characters that str.splitlines would take for line ends
            expected = {"a.jpg": ["one\u2028two\x0bthree\x85four"], "b.jpg": ["five"]}
        assert read_captions(written(tmp_path / "t", content)) == expected

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("a.jpg#0\tone\na.jpg two\n", r"line 2 is not in the known form .*: 'a\.jpg two'"),
            ("\n\nimage,caption\n", "line 3 .*'image,caption'"),
            ("a.jpg\tone\n", "line 1 "),
            ("a.jpg#x\tone\n", "line 1 "),
            ("#0\tone\n", "line 1 "),
            ("a.jpg#0\tone\n" + "x" * 10_000, "line 2 .{,200}$"),
            ("a\x1b[31m\n", re.escape(r"'a\x1b[31m'")),
            (b"a.jpg#0\tcaf\xe9\n", "not a text file in UTF-8 .*byte 11"),
            ("a.jpg#0\tone\n".encode("utf-16"), "not a text file in UTF-8"),
            ("", "the captions file is empty"),
            ("\r\n \n", "the captions file is empty"),
        ],
    )
    def test_errors_name_the_file_the_line_and_its_text(
        self, content: str | bytes, message: str, tmp_path: Path
    ) -> None:
        file = written(tmp_path / "captions.txt", content)
        with pytest.raises(DataError, match=message) as caught:
            read_captions(file)
        assert str(caught.value).startswith(f"{file}: ")
        assert str(caught.value).isprintable()
        assert isinstance(caught.value, UserError)

    @pytest.mark.parametrize("name", ["missing.txt", "."])
    def test_a_file_that_is_not_there(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such captions file"):
            read_captions(tmp_path / name)
        with pytest.raises(DataError, match="no such split list"):
            read_split_list(tmp_path / name)


class TestSplitList:
    @pytest.mark.parametrize("content", ["b.jpg\na.jpg\n", "\ufeffb.jpg\r\n\r\n  a.jpg  \r\nb.jpg"])
    def test_each_name_comes_once_in_the_order_of_the_file(self, content: str, tmp_path: Path) -> None:
        assert read_split_list(written(tmp_path / "list", content)) == ["b.jpg", "a.jpg"]

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
            (1, r"1 of 8 pictures are not in .*: lost0\.jpg$"),
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
        with pytest.raises(DataError, match=r"6 of 7 pictures have no captions: picture1\.jpg, .*, \.\.\.$"):
            find_examples({names[0]: ["one"]}, pictures[0].parent, names)

    def test_present_names_are_the_captioned_pictures_in_the_folder(self, pictures: list[Path]) -> None:
        captions = {name: ["one"] for name in ("picture3.jpg", "lost.jpg", "picture1.jpg")}
        assert present_names(captions, pictures[0].parent) == ["picture3.jpg", "picture1.jpg"]

    def test_no_captioned_picture_in_the_folder(self, pictures: list[Path]) -> None:
        with pytest.raises(DataError, match=r"holds none of the 2 captioned pictures, such as x\.jpg"):
            present_names({"x.jpg": ["one"], "y.jpg": ["two"]}, pictures[0].parent)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        captions = {"x.jpg": ["one"]}
        with pytest.raises(DataError, match="no such folder of pictures"):
            present_names(captions, tmp_path / "nowhere")
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
