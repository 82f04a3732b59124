"""From an RGB picture to the encoder's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captioner.pictures.load import MAX_PIXELS, ImageSource, load_image


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the network's input. It is part of the checkpoint and the same everywhere.

    The whole picture is squeezed to a square and never cropped: what is at the edge of a photo may matter for its
    caption, and the shipped model learned from squeezed pictures.
    """

    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of ImageNet, for values from 0 to 1
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Squeeze an RGB picture to (S, S, 3), values from 0 to 255."""
        return np.array(image.resize((self.size, self.size), Image.Resampling.BILINEAR))

    def read(self, image: ImageSource, name: str = "the picture", max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Any picture to (S, S, 3), as `pixels`. Raises ImageError, in which it is called `name`."""
        # Reduced to twice the side while it is read, a picture still looks the same after the last reduction.
        return self.pixels(load_image(image, max_pixels=max_pixels, smallest=2 * self.size, name=name))
