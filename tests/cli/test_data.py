"""`captioner data` as people run it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shapes(command: Command, tmp_path: Path) -> dict[str, Path]:
    """A generated set: the arguments that name it."""
    folder = tmp_path / "shapes"
    assert command("data", "make-shapes", folder, "--pictures", 40)[0] == 0
    return {
        "--captions": folder / "captions.token.txt",
        "--images": folder / "images",
        "--train-list": folder / "train.txt",
        "--val-list": folder / "val.txt",
    }


def arguments(given: dict[str, Path]) -> list[object]:
    return [part for pair in given.items() for part in pair]


def test_a_good_set(command: Command, shapes: dict[str, Path]) -> None:
    status, out, _ = command("data", "check", *arguments(shapes))
    assert status == 0
    for line in (
        "captions               120 of 40 pictures, 3 each",
        "captioned and there    40",
        "missing                0",
        "cannot be read         0",
        "to learn from          32 pictures, 96 captions",
        "to validate on         8 pictures, 24 captions",
        "<- training's",
    ):
        assert line in out
    assert "Training would see words, split so: to learn from train.txt, to validate on val.txt\n" in out
    table = [line.split()[0] for line in out.split("--minimum-count ")[1].splitlines()[1:7]]
    assert table == ["1", "2", "3", "4", "5", "10"]


def test_what_is_wrong_is_counted_and_named(command: Command, shapes: dict[str, Path]) -> None:
    images = shapes["--images"]
    (images / "shape0001.png").unlink()
    (images / "shape0002.png").write_bytes(b"no picture")
    shutil.copy(images / "shape0003.png", images / "shape0005.png")  # one is in train, the other in val
    shutil.copy(images / "shape0004.png", images / "extra.png")
    with shapes["--captions"].open("a") as file:
        file.write("shape0004.png#3\t\nshape0004.png#4\tZebra\x1b[31m quorum the longest of all captions !\n")
    with shapes["--train-list"].open("a") as file:
        file.write("shape0010.png\nnowhere.png\n")
    status, out, _ = command("data", "check", *arguments(shapes))
    assert status == 1
    for line in (
        "empty, left out        1",
        "missing                1: shape0001.png",
        f"cannot be read         1: {images / 'shape0002.png'}: not a picture",
        "without captions       1: extra.png",
        "listed, no captions    1: nowhere.png",
        "same file twice        1: shape0003.png = shape0005.png",
        "in both split lists    1: shape0010.png",
        "the same file in both  1: shape0003.png = shape0005.png",
    ):
        assert line in out
    assert "longest  (8): Zebra [31m quorum the longest of all captions !\n" in out
    assert "\x1b" not in out


def test_two_rows_and_what_was_read_otherwise_are_shown(command: Command, pictures: list[Path]) -> None:
    file = pictures[0].parent / "captions.csv"
    file.write_text("image,caption\npicture0.jpg,startseq a dog, big endseq\npicture1.jpg,a cat\npicture2.jpg,...\n")
    status, out, _ = command("data", "check", "--captions", file, "--images", file.parent)
    assert status == 0
    assert "  read as                picture0.jpg: a dog, big\n  read as                picture1.jpg: a cat\n" in out
    assert "  note                   marks around captions are dropped, 1 times, as from 'startseq a dog" in out
    assert "  note                   left out: 1 caption without words\n" in out


@pytest.mark.parametrize("action", [("data", "check"), ("train", "--output", "run"), ("evaluate",)])
def test_99_of_100_missing(
    command: Command, pictures: list[Path], action: tuple[str, ...], tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    rows = "".join(f"sub/{number}.jpg,a dog\n" for number in range(99))
    (tmp_path / "c.csv").write_text(f"image,caption\npicture0.jpg,a cat\n{rows}")
    more = ("--checkpoint", tiny_checkpoint_file) if action == ("evaluate",) else ()
    status, _, err = command(*action, "--captions", tmp_path / "c.csv", "--images", pictures[0].parent, *more)
    assert status == 2
    assert "99 of 100" in err
    assert str(pictures[0].parent) in err
    assert "sub/0.jpg" in err


def test_a_split_list_may_name_pictures_otherwise(command: Command, shapes: dict[str, Path]) -> None:
    lists = shapes["--train-list"], shapes["--val-list"]
    lists[0].write_bytes(("\r\n".join(f"images/{name}" for name in lists[0].read_text().split())).encode("utf-16"))
    lists[1].write_text("\r".join(name.removesuffix(".png") for name in lists[1].read_text().split()))
    status, out, _ = command("data", "check", *arguments(shapes))
    assert status == 0
    assert "to learn from          32 pictures, 96 captions" in out


@pytest.mark.parametrize("trouble", ["missing", "unreadable", "overlap", "same file"])
def test_each_trouble_alone_fails_the_check(command: Command, shapes: dict[str, Path], trouble: str) -> None:
    images = shapes["--images"]
    if trouble == "missing":
        (images / "shape0001.png").unlink()
    elif trouble == "unreadable":
        (images / "shape0002.png").write_bytes(b"no picture")
    elif trouble == "overlap":
        shapes["--val-list"] = shapes["--train-list"]
    else:
        shutil.copy(images / "shape0003.png", images / "shape0005.png")
    assert command("data", "check", *arguments(shapes))[0] == 1


def test_pictures_that_are_not_listed_may_be_missing(command: Command, shapes: dict[str, Path]) -> None:
    with shapes["--captions"].open("a") as file:
        file.write("test.png#0\tA dog\n")
    status, out, _ = command("data", "check", *arguments(shapes))
    assert status == 0
    assert "missing, not listed    1\n" in out
    del shapes["--train-list"], shapes["--val-list"]
    status, out, _ = command("data", "check", *arguments(shapes))
    assert status == 1
    assert "missing                1: test.png" in out
    assert "split so: a tenth held out at random with seed 0" in out


def test_pictures_may_lie_anywhere(command: Command, shapes: dict[str, Path], tmp_path: Path) -> None:
    rows = [f"{path},a dog {path.stem}\n" for path in sorted(shapes["--images"].iterdir())]
    (tmp_path / "c.csv").write_text("path,caption\n" + "".join(rows))
    shutil.copy(shapes["--images"] / "shape0003.png", shapes["--images"] / "shape0005.png")
    (tmp_path / "elsewhere").mkdir()
    (shapes["--images"] / "shape0001.png").rename(tmp_path / "elsewhere/shape0001.png")
    _, out, _ = command("data", "check", "--captions", tmp_path / "c.csv", "--images", tmp_path / "elsewhere")
    assert "captioned and there    40" in out
    assert "shape0003.png = " in out


def test_chinese_is_counted_in_characters(command: Command, tmp_path: Path) -> None:
    command("data", "make-shapes", tmp_path / "zh", "--language", "zh", "--pictures", 30)
    files = ("--captions", tmp_path / "zh/captions.token.txt", "--images", tmp_path / "zh/images")
    _, out, _ = command("data", "check", *files)
    assert "Lengths in characters: " in out
    assert "Training would see characters" in out
    _, out, _ = command("data", "check", *files, "--tokens", "word", "--minimum-count", 7)
    assert "Lengths in words: 1.0 on average" in out
    assert "\n                7 " in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--captions": "nowhere"}, "nowhere: no such captions file"),
        ({"--images": "nowhere"}, "nowhere: no such folder of pictures"),
        ({"--images": "empty", "--train-list": None, "--val-list": None}, "empty: holds none of the 40"),
        ({"--train-list": None}, "val_list (--val-list) needs train_list (--train-list)"),
    ],
)
def test_what_cannot_be_checked(
    command: Command, shapes: dict[str, Path], tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    for flag, value in changes.items():
        del shapes[flag]
        if value:
            shapes[flag] = tmp_path / value
    status, out, err = command("data", "check", *arguments(shapes))
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_make_shapes_prints_commands_that_work(command: Command, tmp_path: Path) -> None:
    status, out, _ = command("data", "make-shapes", tmp_path / "my set", "--pictures", 10)
    assert status == 0
    check, train, evaluate = (block.replace("\\\n", " ") for block in out.strip().split("\n\n")[1:])
    assert command(*shlex.split(check)[1:])[0] == 0
    assert shlex.split(train)[:2] == ["captioner", "train"]
    assert shlex.split(evaluate)[:2] == ["captioner", "evaluate"]
    status, _, err = command("data", "make-shapes", tmp_path / "my set")
    assert status == 2
    assert "is there already: name another folder" in err


def test_next_writes_captions_to_correct(
    command: Callable[..., tuple[int, str, str]], pictures: list[Path], tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    folder = pictures[0].parent
    given = (folder, "-n", 3, "--checkpoint", tiny_checkpoint_file)
    status, out, _ = command("data", "next", *given)
    assert (status, out.splitlines()[0], out.count("\n")) == (0, '"path","caption"', 4)
    status, out, err = command("data", "next", *given, "-o", tmp_path / "next.csv")
    assert (status, out) == (0, "")
    assert f"3 pictures to caption added to {tmp_path / 'next.csv'}" in err
    pictures[0].write_bytes(b"broken")
    (folder / "below").mkdir()
    pictures[1].rename(folder / "below" / "a.jpg")
    status, _, err = command("data", "next", *given)
    assert status == 1
    assert f"{pictures[0]}: " in err
    assert f"in the subfolders of {folder}: add recursive (-r)" in err
    assert command("data", "next", "no-such", "-o", tmp_path / "next.csv")[2].endswith("no such file or folder\n")
