"""On which device to compute."""

from __future__ import annotations

import torch

from captioner.errors import DeviceError


def best_device() -> str:
    """The device of this machine that "auto" means."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return next((name for name, is_there in there.items() if is_there), "cpu")


def check_device(device: str) -> None:
    """Raise DeviceError unless torch computes on a device of this name."""
    try:
        torch.zeros(1, device=device).item()  # it must give results back, too
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA or XPU
        gpus = {
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
            "xpu": torch.xpu.is_available(),
        }
        there = " or ".join(["cpu", *(name for name, is_there in gpus.items() if is_there)])
        without = device.startswith("cuda") and not torch.backends.cuda.is_built()
        hint = "; this torch was built without CUDA" if without else ""
        raise DeviceError(f"no device {device!r} here: give {there}, or leave it out{hint}") from error
