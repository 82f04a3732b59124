"""From an RGB picture to the encoder's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from captioner.pictures.load import LARGE


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the network's input. It is part of the checkpoint and the same everywhere.

    The whole picture is squeezed to a square and never cropped: what is at the edge of a photo may matter for its
    caption, and the shipped model learned from squeezed pictures.
    """

    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of ImageNet, for values from 0 to 1
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def pixels(self, image: Image.Image) -> Tensor:
        """Squeeze an RGB picture to (3, S, S), uint8 from 0 to 255; in memory it is (S, S, 3)."""
        if image.width * image.height > LARGE:  # copies of it would take too much memory
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image, np.uint8))[None].permute(0, 3, 1, 2)  # in memory (1, H, W, 3)
        if image.size != (self.size, self.size):
            # The same as Pillow's bilinear resizing up to rounding, but faster.
            pixels = interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
        return pixels[0]

    @staticmethod
    def batch(pixels: Sequence[Tensor]) -> Tensor:
        """Pictures (3, S, S) of `pixels` -> (B, 3, S, S), channels last; the order in memory stays as it is."""
        return torch.stack([picture.permute(1, 2, 0) for picture in pixels]).permute(0, 3, 1, 2)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 from 0 to 255 -> (B, 3, S, S) float32, channels last, mean about 0, variance about 1."""
        # Mean and std are expanded to all pixels, because torch is much faster with rows of equal length.
        scaled = (torch.tensor(values, device=pixels.device) * 255.0 for values in (self.mean, self.std))
        mean, std = (values.expand(*pixels.shape[2:], 3).contiguous().permute(2, 0, 1) for values in scaled)
        return pixels.contiguous(memory_format=torch.channels_last).float().sub_(mean).div_(std)
