"""Random changes to training pictures that leave their captions true."""

from __future__ import annotations

import random

from PIL import Image, ImageEnhance


def augmented(image: Image.Image, mirrored: bool, size: int, rng: random.Random) -> Image.Image:
    """A random crop resized to the square, with slightly different light, mirrored or not.

    The crop has 70 to 100 % of the width and of the height, so that it keeps nearly everything that captions mention.
    Hues do not change, because captions name colours.
    """
    width, height = (side * rng.uniform(0.7, 1.0) for side in image.size)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    crop = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        crop = enhance(crop).enhance(rng.uniform(0.75, 1.25))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop
