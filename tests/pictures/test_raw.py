"""Raw files: their preview, turned upright, or the raw file itself where it has none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.errors import ImageError
from captioner.pictures import raw
from captioner.pictures.load import load_image
from pictures.dng import dng

SENSOR = Image.new("RGB", (96, 64), "green")  # as the picture lies on the sensor: its top left is red
SENSOR.paste("red", (0, 0, 48, 32))
PREVIEW = Image.new("RGB", (48, 32), "navy")
PREVIEW.paste("white", (0, 0, 24, 16))
CORNERS = {1: (0, 0), 3: (1, 1), 6: (0, 1), 8: (1, 0)}  # row and column in which the sensor's top left is seen
needs_rawpy = pytest.mark.skipif(not raw.available(), reason="needs rawpy")


def corner(picture: Image.Image) -> tuple[int, int]:
    """The row and column of the quarter that has the most red."""
    red = np.asarray(picture.resize((2, 2), Image.Resampling.BOX))[:, :, 0].astype(int)
    row, column = np.unravel_index(red.argmax(), red.shape)
    return int(row), int(column)


@needs_rawpy
@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("preview", [PREVIEW, None], ids=["preview", "none"])
@pytest.mark.parametrize("name", ["a.dng", "b.NEF"])
def test_the_preview_is_read_upright_and_else_the_raw_file(
    name: str, preview: Image.Image | None, orientation: int, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(dng(SENSOR, preview, orientation))
    for picture in (load_image(tmp_path / name), load_image((tmp_path / name).read_bytes(), name=name)):
        assert picture.size == ((48, 32) if orientation in (1, 3) else (32, 48))
        assert corner(picture) == CORNERS[orientation]
        assert (np.asarray(picture)[:, :, 2].max() > 100) == (preview is not None)


@needs_rawpy
def test_a_preview_that_is_upright_already_is_not_turned(tmp_path: Path) -> None:
    (tmp_path / "a.dng").write_bytes(dng(SENSOR, PREVIEW.transpose(Image.Transpose.ROTATE_270), 6))
    picture = load_image(tmp_path / "a.dng")
    assert (picture.size, corner(picture)) == ((32, 48), (0, 1))


@needs_rawpy
def test_a_preview_that_is_too_small_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "a.dng").write_bytes(dng(SENSOR, PREVIEW.resize((24, 16))))
    assert load_image(tmp_path / "a.dng").size == (24, 16)
    assert load_image(tmp_path / "a.dng", smallest=30).size == (48, 32)


@needs_rawpy
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"nothing" * 100, "a raw file that cannot be read"),
        (dng(SENSOR, None)[:900], "a raw file that cannot be read"),
        (dng(SENSOR), "96 x 64 is more than 0.001 million pixels"),
    ],
)
def test_a_damaged_raw_file_is_named(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "a.dng").write_bytes(content)
    with pytest.raises(ImageError, match=rf"a\.dng: {why}"):
        load_image(tmp_path / "a.dng", max_pixels=1000 if "more than" in why else 10_000)


@needs_rawpy
def test_a_file_name_need_not_be_text(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.dng").write_bytes(dng(SENSOR, PREVIEW))
    assert load_image(tmp_path / "caf\udce9.dng").size == (48, 32)


@needs_rawpy
def test_a_preview_in_pixels_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    import rawpy

    thumb = rawpy.Thumbnail(rawpy.ThumbFormat.BITMAP, np.asarray(PREVIEW))
    opened = rawpy.imread

    class Stub:
        sizes = opened(io.BytesIO(dng(SENSOR, None, 6))).sizes

        def __enter__(self) -> Stub:
            return self

        def __exit__(self, *_: object) -> None: ...

        def extract_thumb(self) -> object:
            return thumb

    monkeypatch.setattr(rawpy, "imread", lambda _: Stub())
    picture = load_image(b"raw", name="a.cr2")
    assert (picture.size, corner(picture)) == ((32, 48), (0, 1))


def test_without_the_extra_a_raw_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "available", lambda: False)
    (tmp_path / "a.NEF").write_bytes(dng(SENSOR, PREVIEW))
    with pytest.raises(ImageError, match=r'a\.NEF: is a raw file, which needs rawpy: pip install "captioner\[raw\]"'):
        load_image(tmp_path / "a.NEF")
