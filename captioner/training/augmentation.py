"""Pictures made a little different each time, captions kept true."""

from __future__ import annotations

import random

from PIL import Image, ImageEnhance


def augmented(image: Image.Image, mirrored: bool, size: int, rng: random.Random) -> Image.Image:
    """A random part of the picture, squeezed to the square, in a slightly different light, mirrored or not.

    Width and height of the part are each 70 to 100 % of the picture's: nearly everything that the captions speak of is
    in it. Hues stay, since captions name colours.
    """
    width, height = (side * rng.uniform(0.7, 1.0) for side in image.size)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    part = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        part = enhance(part).enhance(rng.uniform(0.75, 1.25))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else part
