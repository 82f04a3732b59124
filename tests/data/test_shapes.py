"""The generated set."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from captioner.data.captions import read_captions
from captioner.data.shapes import make_shapes
from captioner.data.splits import choose_split
from captioner.errors import OptionError, OutputError
from captioner.vocab import fitting_tokens


def test_the_set_is_whole(tmp_path: Path) -> None:
    captions, images, train_list, val_list = make_shapes(tmp_path / "new/set", 90, side=48)
    split = choose_split(read_captions(captions), images, train_list, val_list, seed=0)
    assert (len(split.train), len(split.validation)) == (72, 18)
    for example in split.train + split.validation:
        assert len(set(example.captions)) == 3
        assert Image.open(example.path).size == (48, 48)


def test_what_is_said_alike_is_said_in_all_the_ways(tmp_path: Path) -> None:
    captions = read_captions(make_shapes(tmp_path, 150)[0]).captions
    ways: dict[str, set[tuple[str, ...]]] = {}
    for texts in captions.values():
        ways.setdefault(texts[0], set()).add(tuple(texts))
    assert len(ways) == 72, "6 colours, 3 shapes, small, large, two or three"
    assert all(len(those) == 1 for those in ways.values())


def test_the_seed_decides(tmp_path: Path) -> None:
    def content(name: str, seed: int) -> list[bytes]:
        make_shapes(tmp_path / name, 10, seed, side=32)
        return [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*"))]

    first, again, other = content("a", 0), content("b", 0), content("c", 1)
    assert first == again
    assert first != other


def test_chinese_captions_are_natural(tmp_path: Path) -> None:
    captions = read_captions(make_shapes(tmp_path, 80, language="zh")[0]).captions
    texts = [text for those in captions.values() for text in those]
    assert "一个红色的大圆形。" in texts
    assert "图中有两个蓝色的三角形。" in texts
    assert "三个白色正方形。" in texts
    assert all(re.fullmatch(r"(图中有)?[一两三]个[红蓝绿黄白黑]色的?[大小]?(圆|正方|三角)形。", text) for text in texts)
    assert fitting_tokens(texts) == "character"


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"train\.txt: is there already"):
        make_shapes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.txt"]
    with pytest.raises(OptionError, match="at least 2"):
        make_shapes(tmp_path / "one", 1)
