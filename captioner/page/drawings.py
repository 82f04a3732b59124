"""Drawings for the page, as pictures and as HTML that a screen reader can read. Nothing here needs Streamlit."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from captioner.inference.explanation import GRID, Branch, Candidate
from captioner.templates import render

STRONG = 2.0  # nats: hiding a part that matters this much makes the word e^2 times less likely

_PLACES = (("top_left", "top", "top_right"), ("left", "middle", "right"), ("bottom_left", "bottom", "bottom_right"))


def percent(probability: float) -> str:
    """A probability as people read it: 37%, 4.2%, 0.003%."""
    return f"{100 * probability:.0f}%" if probability >= 0.1 else f"{100 * probability:.2g}%"


def words(texts: Sequence[str], probabilities: Sequence[float]) -> str:
    """Words with their probabilities under them. The likelier a word, the stronger its colour."""
    return _html("words", words=zip(texts, probabilities, strict=True))


def bars(candidates: Sequence[Candidate], chosen: str, headings: tuple[str, str], caption: str) -> str:
    """A bar chart of candidate words as a table, with the `chosen` one set off."""
    return _html("bars", candidates=candidates, chosen=chosen, headings=headings, caption=caption)


def states(rows: Sequence[tuple[str, Tensor]], describe: str) -> str:
    """Hidden states, (H,) each in -1 to 1, as coloured strips. `describe` is the alt text, with {word} in it."""
    return _html("states", rows=[(word, _strip(hidden), describe.replace("{word}", word)) for word, hidden in rows])


def network(description: str, size: int, encoder: str, feature_size: int, cell: str, memory: bool) -> str:
    """The way from a picture of `size` pixels to words: encoder, feature, h_0 (and c_0 of a cell with memory), cell."""
    sizes = {"size": size, "encoder": encoder, "feature_size": feature_size, "cell": cell, "memory": memory}
    return _html("network", description=description, **sizes)


def beam_tree(beam: Sequence[Sequence[Branch]], winner: Sequence[str], end: str, description: str) -> str:
    """The hypotheses of a beam as a tree that grows to the right. `winner` is the caption's words and its end."""
    return _html("beam", beam=beam, path=_path(beam, winner), end=end, description=description)


def _path(beam: Sequence[Sequence[Branch]], winner: Sequence[str]) -> dict[int, int]:
    """The winner's place at each step. Its words alone do not tell it: other hypotheses may end in the same words."""
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


def _strip_pixels(hidden: Tensor) -> npt.NDArray[np.uint8]:
    """(H,) -> (1, H, 4) RGBA: blue below zero, orange above, transparent at zero."""
    values = hidden.clamp(-1, 1).numpy()[None, :, None]
    colours = np.where(values < 0, (30, 100, 220), (235, 120, 0))
    return np.concatenate([colours, 255 * np.abs(values)], -1).astype(np.uint8)


def _strip(hidden: Tensor) -> str:
    """(H,) as a PNG of one row, as a `data:` URI."""
    file = io.BytesIO()
    Image.fromarray(_strip_pixels(hidden)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _html(template: str, **values: object) -> str:
    return "".join(render(f"page/{template}.html", percent=percent, **values))
