"""Pictures that are no ordinary photographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from captioner.errors import OptionError, OutputError
from captioner.pictures.load import load_image
from captioner.pictures.sample_pictures import SAMPLES
from captioner.pictures.unfamiliar import DAMAGES, KINDS, damage, draw, make_unfamiliar


def same(first: Image.Image, second: Image.Image) -> bool:
    return first.size == second.size and first.tobytes() == second.tobytes()


def check(pictures: list[Image.Image]) -> None:
    """The second is the first once more, the third another one."""
    first, again, other = pictures
    assert all(picture.mode == "RGB" and 100 <= min(picture.size) <= max(picture.size) < 1200 for picture in pictures)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_and_a_number_give_one_picture(kind: str) -> None:
    check([draw(kind, number) for number in (0, 0, 1)])


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_depends_on_the_photograph_and_the_number(kind: str) -> None:
    cat, other = (load_image(path).resize((160, 120)) for path in SAMPLES.values())
    check([damage(kind, photograph, 0) for photograph in (cat, cat, other)])
    damaged = [damage(kind, cat, number) for number in range(5)]
    assert not all(same(damaged[0], picture) for picture in damaged)
    assert not any(same(cat, picture) for picture in damaged)


def test_there_are_many_kinds_in_different_folders() -> None:
    assert len(KINDS) >= 24
    assert len({*KINDS, *DAMAGES}) == len(KINDS) + len(DAMAGES)


def test_the_command_writes_every_kind(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    Image.new("RGB", (90, 60), "red").save(tmp_path / "red.png")
    status, out, _ = command("data", "make-unfamiliar", tmp_path / "new", "--number", 1, "--images", tmp_path)
    assert status == 0
    assert out.startswith(f"{len(KINDS + DAMAGES)} pictures of {len(KINDS + DAMAGES)} kinds are in ")
    assert {path.parent.name for path in (tmp_path / "new").glob("*/0000.png")} == {*KINDS, *DAMAGES}
    assert Image.open(tmp_path / "new/inverted/0000.png").getpixel((0, 0)) == (0, 255, 255)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "edges").mkdir()
    with pytest.raises(OutputError, match="edges: is there already"):
        make_unfamiliar(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["edges"]
    with pytest.raises(OptionError, match="--number"):
        make_unfamiliar(tmp_path / "none", 0)
