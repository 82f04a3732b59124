"""Pictures to try the page with: a photograph that matplotlib installs, and drawings in the folder `samples`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import Image

from captioner.pictures.load import load_image

SAMPLES = ("portrait", "beach", "snow", "boat")


@cache
def sample(name: str) -> Image.Image:
    """One of SAMPLES, RGB."""
    if name == "portrait":  # Grace Hopper, US Navy, public domain
        from matplotlib.cbook import get_sample_data

        return load_image(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    return load_image(Path(__file__).parent / "samples" / f"{name}.webp")
