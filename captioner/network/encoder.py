"""The encoder: a convolutional network without its classifier, made fast for inference."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from captioner.errors import CheckpointError, OptionError
from captioner.network.efficientnet_lite import VARIANTS, EfficientNetLite
from captioner.network.preprocess import Preprocess
from captioner.network.torchvision_compat import prepare_torchvision
from captioner.options import PRECISIONS

Network = TypeVar("Network", bound=nn.Module)


def encoder_names() -> list[str]:
    """The names of torchvision's classification networks and of those that captioner adds."""
    prepare_torchvision()
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return [*names, *VARIANTS]


class Encoder(nn.Module):
    """A classification network without its last linear layer: (B, 3, S, S) of `normalise` -> (B, F).

    It stays in evaluation mode while it is trained, so BatchNorm keeps its statistics: batches are small, and in some
    published weights BatchNorm was folded into the convolutions, which statistics of a batch would undo. Scale and
    bias are trained like all other weights.
    Raises CheckpointError for a name that is not in `encoder_names` or whose network has no feature vector.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        # torchvision takes a while to import, and is not needed for these.
        lite = EfficientNetLite(VARIANTS[name]) if name in VARIANTS else None
        self.backbone: nn.Module = lite or _of_torchvision(name)
        linear = [(path, layer) for path, layer in self.backbone.named_modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise CheckpointError(f"encoder {name} has no linear classifier and so no feature vector")
        self.head_name, head = linear[-1]
        self.feature_size: int = head.in_features
        self.backbone.set_submodule(self.head_name, nn.Identity())
        self.eval()

    def train(self, mode: bool = True) -> Encoder:
        """Stay in evaluation mode: see the class."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, F)"""
        feature: Tensor = self.backbone(images)
        return feature


def _of_torchvision(name: str) -> nn.Module:
    if name not in encoder_names():
        some = "mobilenet_v2, mobilenet_v3_large, resnet18, resnet50, efficientnet_b0, convnext_tiny"
        hint = f"give a classification network of torchvision.models, such as {some}, or {', '.join(VARIANTS)}"
        raise CheckpointError(f"unknown encoder {name!r}: {hint}")
    from torchvision import models

    # Inception has auxiliary classifiers, published weights for another input, and a slow initialisation that loading
    # would overwrite.
    inception = {"aux_logits": False, "transform_input": True, "init_weights": False}
    extra: dict[str, Any] = inception if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(name, weights=None, **extra)
    return network


def channels_last(network: Network) -> Network:
    """Store the convolutions' weights in channels-last order, in place."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    return network


def as_batch(pixels: Iterable[NDArray[np.uint8]]) -> Tensor:
    """Pictures (S, S, 3) of `Preprocess.pixels` -> (B, 3, S, S), channels last; the order in memory stays as it is."""
    return torch.from_numpy(np.stack(list(pixels))).permute(0, 3, 1, 2)


def normalise(preprocess: Preprocess, pixels: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 from 0 to 255 -> (B, 3, S, S) float32, channels last, mean about 0, variance about 1."""
    # Mean and std are expanded to all pixels, because torch is much faster with rows of equal length.
    scaled = (torch.tensor(values, device=pixels.device) * 255.0 for values in (preprocess.mean, preprocess.std))
    mean, std = (values.expand(*pixels.shape[2:], 3).contiguous().permute(2, 0, 1) for values in scaled)
    return pixels.contiguous(memory_format=torch.channels_last).float().sub_(mean).div_(std)


@cache
def native_bfloat16(device_type: str) -> bool:
    """Whether the hardware computes in bfloat16. Where it is emulated, it is slower than float32."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch tells this only under private names. Should they disappear, float32 is right, only slower.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device_type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in names)


def computing_type(precision: str, device_type: str) -> torch.dtype:
    """The type that "auto", "float32" or "bfloat16" means on a device. Raises OptionError for another name."""
    if precision not in PRECISIONS:
        raise OptionError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    low = precision == "bfloat16" or (precision == "auto" and native_bfloat16(device_type))
    return torch.bfloat16 if low else torch.float32


def in_bfloat16(network: Network) -> Network:
    """A copy of a network that computes in bfloat16. The sum of each kernel of its convolutions hardly changes.

    bfloat16 keeps 8 bits of a weight. Neighbouring pixels are much alike, so the output of a k x k kernel depends more
    on the sum of its weights than on each of them. Therefore the rounding error of a weight is added to the next one
    before that is rounded (Floyd and Steinberg 1976, "An adaptive algorithm for spatial greyscale"). `python
    benchmarks/precision.py` measures the gain.
    """
    rounded = copy.deepcopy(network)
    for module in rounded.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = _diffused(module.weight.data)
    return rounded.to(torch.bfloat16)


def _diffused(weight: Tensor) -> Tensor:
    """(C', C, k, k) float32 -> values that bfloat16 can hold, in the same memory format."""
    found, carry = torch.empty_like(weight), weight.new_zeros(weight.shape[:2])
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            wanted = weight[:, :, i, j] + carry
            found[:, :, i, j] = wanted.to(torch.bfloat16)
            carry = wanted - found[:, :, i, j]
    return found
