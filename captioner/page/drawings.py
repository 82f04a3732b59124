"""Drawings for the page, as pictures and as HTML that a screen reader can read. Nothing here needs Streamlit."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from captioner.inference.explanation import GRID, Branch
from captioner.templates import render

STRONG = 2.0  # nats: hiding a part that matters this much makes the word e^2 times less likely

_PLACES = (("top_left", "top", "top_right"), ("left", "middle", "right"), ("bottom_left", "bottom", "bottom_right"))


def percent(probability: float) -> str:
    """A probability as people read it: 37%, 4.2%, 0.003%."""
    return f"{100 * probability:.0f}%" if probability >= 0.1 else f"{100 * probability:.2g}%"


def drawn(name: str, **values: object) -> str:
    """A drawing as HTML: templates/page/{name}.html with these values."""
    return "".join(render(f"page/{name}.html", percent=percent, **values))


def path_of(beam: Sequence[Sequence[Branch]], winner: Sequence[str]) -> dict[int, int]:
    """The place at each step of a caption's words and its end. Other hypotheses may end in the same words."""
    ways: list[tuple[list[str], list[int]]] = [([], [])]  # the words of each hypothesis, and its place at each step
    for step in beam:
        before, ways = ways, []
        for place, branch in enumerate(step):
            words, places = before[branch.parent or 0]
            ways.append(([*words, branch.word], [*places, place]))
            if ways[-1][0] == list(winner):
                return dict(enumerate(ways[-1][1]))
    return {}


def heat_overlay(picture: Image.Image, heat: Tensor) -> Image.Image:
    """The picture in grey with a heat map (GRID, GRID), in nats, over it. STRONG gets the full colour."""
    strength = (heat.clamp(min=0.0) / STRONG).clamp(max=1.0).numpy()
    mask = Image.fromarray((255 * strength).astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    grey = Image.blend(picture, picture.convert("L").convert("RGB"), 0.75)
    warm = Image.blend(picture, Image.new("RGB", picture.size, (255, 120, 0)), 0.55)
    return Image.composite(warm, grey, mask)


def strongest(heat: Tensor) -> tuple[str, float]:
    """Where a heat map (GRID, GRID) is strongest, as one of nine names in `texts`, and how strong it is there."""
    row, column = divmod(int(heat.argmax()), GRID)
    return _PLACES[3 * row // GRID][3 * column // GRID], float(heat.max())


def strip(hidden: Tensor) -> str:
    """A hidden state, (H,), as the `data:` URI of a PNG of one row: blue below zero, orange above, clear at zero."""
    values = hidden.clamp(-1, 1).numpy()[None, :, None]
    colours = np.where(values < 0, (30, 100, 220), (235, 120, 0))
    pixels = np.concatenate([colours, 255 * np.abs(values)], -1).astype(np.uint8)  # (1, H, 4) RGBA
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
