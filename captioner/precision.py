"""Whether this processor computes in bfloat16 faster than in float32."""

from __future__ import annotations

from functools import cache

import torch


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
