"""Which files show the same picture."""

from __future__ import annotations

import pytest

from captioner.pictures.pairs import one_of_each, seconds


@pytest.mark.parametrize(
    ("names", "second"),
    [
        ("a.jpg a.nef", {"a.nef": "a.jpg"}),
        ("IMG.JPG img.cr2", {"img.cr2": "IMG.JPG"}),
        ("a.heic a.mov", {"a.mov": "a.heic"}),
        ("a.jpg a.mp4", {"a.mp4": "a.jpg"}),
        ("a.jpg a.heic a.dng a.mov", {"a.dng": "a.jpg", "a.mov": "a.jpg"}),
        ("a.dng a.mov", {"a.mov": "a.dng"}),
        ("a.arw a.dng a.xmp", {"a.dng": "a.arw"}),
        ("a.png a.nef a.tif a.txt", {}),
        ("a.jpg a.jpeg a.heic a.png", {}),
        ("a.mov a.mp4 b.jpg c.avi c.jpg", {}),
    ],
)
def test_the_jpeg_stands_for_the_others(names: str, second: dict[str, str]) -> None:
    assert seconds(names.split()) == seconds(reversed(names.split())) == second


def test_only_those_whose_other_is_among_them_are_left_out() -> None:
    paths = ["x/a.nef", "x/a.jpg", "y/a.nef", "b.dng", "b.mov", "c.png"]
    assert list(one_of_each(paths)) == ["x/a.jpg", "y/a.nef", "b.dng", "c.png"]
