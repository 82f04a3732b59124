"""Augmented pictures keep what their captions speak of."""

from __future__ import annotations

import random

from PIL import Image

from captioner.training.stages import augmented


def test_augmentation_keeps_most_of_the_picture_and_mirrors_when_told() -> None:
    picture = Image.linear_gradient("L").rotate(90).convert("RGB").resize((100, 50))  # brighter towards one side
    plain = augmented(picture, False, 32, random.Random(3))
    mirrored = augmented(picture, True, 32, random.Random(3))
    assert plain.size == (32, 32)
    assert plain.tobytes() == mirrored.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()
    assert plain.tobytes() != mirrored.tobytes()
    shares = []
    for seed in range(50):
        # Where the gradient begins and ends says how much of it is left; the light is another thing.
        row = augmented(picture, False, 32, random.Random(seed)).convert("L").crop((0, 16, 32, 17))
        low, high = row.getextrema()
        shares.append((high - low) / 255)
    assert max(shares) - min(shares) > 0.1  # it does vary


def test_the_part_is_most_of_the_picture() -> None:
    """Of a picture with a mark in each corner of its middle, 40 % in from the sides, no mark is ever lost."""
    picture = Image.new("RGB", (100, 100))
    for x in (40, 59):
        for y in (40, 59):
            picture.paste((255, 255, 255), (x - 5, y - 5, x + 5, y + 5))
    for seed in range(50):
        part = augmented(picture, False, 64, random.Random(seed)).convert("L").point(lambda v: 255 if v > 90 else 0)
        left, top, right, bottom = part.getbbox() or (0, 0, 0, 0)
        assert right - left > 0.25 * 64
        assert bottom - top > 0.25 * 64


def test_light_changes_and_hues_stay() -> None:
    picture = Image.new("RGB", (50, 50), (180, 60, 60))
    pixels = {augmented(picture, False, 8, random.Random(seed)).getpixel((4, 4)) for seed in range(20)}
    assert len(pixels) > 10
    for red, green, blue in pixels:
        assert red > green + 40
        assert abs(green - blue) < 3
