"""A picture becomes what the encoder learned from: squeezed, averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_picture
from PIL import Image
from torch.nn.functional import interpolate

from captioner.errors import ImageError
from captioner.network.preprocess import Preprocess


def test_pixels_are_bytes() -> None:
    pixels = Preprocess(size=64).pixels(draw_picture(3))
    assert (pixels.shape, pixels.dtype) == ((64, 64, 3), np.uint8)


def test_pictures_from_anywhere_are_read_and_squeezed(tmp_path: Path) -> None:
    draw_picture(3).save(tmp_path / "a.png")
    pixels = Preprocess(size=64).pixels(draw_picture(3))
    for source in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), draw_picture(3)):
        np.testing.assert_array_equal(Preprocess(size=64).read(source), pixels)
    with pytest.raises(ImageError, match=r"^mine: not a picture"):
        Preprocess(size=64).read(b"no picture", "mine")
    with pytest.raises(ImageError, match="pixels"):
        Preprocess(size=64).read(draw_picture(3), max_pixels=9)


@pytest.mark.parametrize("size", [(300, 40), (40, 300)])
def test_the_whole_picture_is_squeezed_not_cropped(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "white")
    width, height = size
    for corner, colour in (((0, 0), "red"), ((width - 10, height - 10), "blue")):
        image.paste(colour, (*corner, corner[0] + 10, corner[1] + 10))
    pixels = Preprocess(size=20).pixels(image)
    assert pixels[0, 0].tolist()[0] > pixels[0, 0].tolist()[2] + 50
    assert pixels[-1, -1].tolist()[2] > pixels[-1, -1].tolist()[0] + 50


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 3), (223, 225), (500, 375), (100, 80), (8000, 4000)])
def test_it_is_what_torch_makes_but_for_rounding(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    image = Image.fromarray(noise)
    pixels = Preprocess(size=224).pixels(image)
    whole = torch.from_numpy(noise).permute(2, 0, 1)[None]
    expected = interpolate(whole, (224, 224), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    assert abs(pixels.astype(int) - expected.numpy().astype(int)).max() <= 1


def test_shrinking_averages_all_pixels() -> None:
    """Not only those nearest: a fine pattern becomes grey, not moiré."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = Preprocess(size=8).pixels(Image.fromarray(stripes))
    assert 120 < pixels.min() <= pixels.max() < 135


def test_a_picture_of_the_right_size_is_untouched() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(Preprocess(size=32).pixels(Image.fromarray(noise)), noise)
