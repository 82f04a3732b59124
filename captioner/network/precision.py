"""Arithmetic in bfloat16: whether this processor is faster in it, and how a network comes to it with little loss."""

from __future__ import annotations

import copy
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from captioner.errors import OptionError
from captioner.options import PRECISIONS

Network = TypeVar("Network", bound=nn.Module)


@cache
def native_bfloat16(device_type: str) -> bool:
    """True where bf16 arithmetic is done by the hardware; emulated, it is slower than float32."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type != "cpu":
        return False
    # torch says so only under private names, which may go; then float32 is right, only slower.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in names)


def computing_type(precision: str, device_type: str) -> torch.dtype:
    """What "auto", "float32" or "bfloat16" means on a device. Raises OptionError for another name."""
    if precision not in PRECISIONS:
        raise OptionError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "auto":
        precision = "bfloat16" if native_bfloat16(device_type) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def in_bfloat16(network: Network) -> Network:
    """A copy of a network that computes in bfloat16, each kernel of its convolutions with the sum that it had.

    bfloat16 keeps 8 bits of a weight. Neighbouring pixels are much alike, so what a k x k kernel makes of them hangs
    on the sum of its weights more than on any one of them: each weight is rounded together with the rounding error of
    the one before it (Floyd and Steinberg 1976, "An adaptive algorithm for spatial greyscale"). With the shipped
    encoder the error of features falls from 4.4 to 2.8 % by that (`python benchmarks/precision.py`).
    """
    rounded = copy.deepcopy(network)
    for module in rounded.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = _diffused(module.weight.data)
    return rounded.to(torch.bfloat16)


def _diffused(weight: Tensor) -> Tensor:
    """(C', C, k, k), float32 to such values as bfloat16 holds, in the same memory format."""
    found, carry = torch.empty_like(weight), weight.new_zeros(weight.shape[:2])
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            wanted = weight[:, :, i, j] + carry
            found[:, :, i, j] = wanted.to(torch.bfloat16)
            carry = wanted - found[:, :, i, j]
    return found
