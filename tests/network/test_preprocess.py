"""A picture becomes what the encoder learned from: squeezed, averaged, normalised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import draw_picture
from PIL import Image

from captioner.network.preprocess import Preprocess


def test_pixels_are_channels_first_bytes() -> None:
    pixels = Preprocess(size=64).pixels(draw_picture(3))
    assert (pixels.shape, pixels.dtype) == ((3, 64, 64), torch.uint8)
    assert pixels.permute(1, 2, 0).is_contiguous()  # in memory as Pillow has it


@pytest.mark.parametrize("size", [(300, 40), (40, 300)])
def test_the_whole_picture_is_squeezed_not_cropped(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "white")
    width, height = size
    for corner, colour in (((0, 0), "red"), ((width - 10, height - 10), "blue")):
        image.paste(colour, (*corner, corner[0] + 10, corner[1] + 10))
    pixels = Preprocess(size=20).pixels(image)
    assert pixels[:, 0, 0].tolist()[0] > pixels[:, 0, 0].tolist()[2] + 50
    assert pixels[:, -1, -1].tolist()[2] > pixels[:, -1, -1].tolist()[0] + 50


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 3), (223, 225), (500, 375), (100, 80), (8000, 4000)])
def test_it_is_what_pillow_makes_but_for_rounding(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    image = Image.fromarray(noise)
    pixels = Preprocess(size=224).pixels(image)
    expected = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
    assert abs(pixels.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1
    assert pixels.stride() == (1, 224 * 3, 3)  # so that a batch need not be reordered


def test_shrinking_averages_all_pixels() -> None:
    """Not only those nearest: a fine pattern becomes grey, not moiré."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = Preprocess(size=8).pixels(Image.fromarray(stripes)).float()
    assert 120 < pixels.min() <= pixels.max() < 135


def test_a_picture_of_the_right_size_is_untouched() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(Preprocess(size=32).pixels(Image.fromarray(noise)).permute(1, 2, 0), noise)


def test_normalise_is_that_of_torchvision() -> None:
    """`ToTensor` and `Normalize`: divide by 255, take the mean away, divide by the standard deviation."""
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    normalised = Preprocess(16, mean, std).normalise(pixels)
    expected = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normalised, expected)
    assert normalised.dtype == torch.float32
    assert normalised.is_contiguous(memory_format=torch.channels_last)


def test_pictures_are_laid_together_as_the_encoder_wants_them() -> None:
    preprocess = Preprocess(size=32)
    pictures = [preprocess.pixels(draw_picture(index)) for index in range(3)]
    batch = preprocess.batch(pictures)
    assert torch.equal(batch, torch.stack(pictures))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    normal = preprocess.normalise(batch)
    assert normal.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normal, preprocess.normalise(torch.stack(pictures)))
