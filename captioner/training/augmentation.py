"""Pictures made a little different each time, captions kept true."""

from __future__ import annotations

import random

from PIL import Image


def augmented(image: Image.Image, mirrored: bool, size: int, rng: random.Random) -> Image.Image:
    """A random part of at least 3/4 of the picture, squeezed to the square, mirrored or not.

    Width and height of the part vary independently: everything that the captions speak of is nearly always in it.
    """
    width, height = (side * rng.uniform(0.75**0.5, 1.0) for side in image.size)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    part = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else part
