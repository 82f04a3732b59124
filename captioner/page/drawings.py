"""Drawings for the page, as HTML that a screen reader can read and as pictures. No Streamlit here."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from captioner.inference.explanation import GRID, Branch, Candidate

STRONG = 2.0  # nats: a part whose hiding makes a word e^2 = 7 times less likely gets the full colour

_PLACES = (("top_left", "top", "top_right"), ("left", "middle", "right"), ("bottom_left", "bottom", "bottom_right"))


def percent(probability: float) -> str:
    """A probability as people read it: 37%, 4.2%, 0.003%."""
    return f"{100 * probability:.0f}%" if probability >= 0.1 else f"{100 * probability:.2g}%"


def coloured(words: Sequence[str], probabilities: Sequence[float]) -> str:
    """Words with their probabilities under them, the fuller the colour the likelier."""
    items = "".join(
        f'<li style="--probability:{probability:.3f}">{escape(word)}<small>{percent(probability)}</small></li>'
        for word, probability in zip(words, probabilities, strict=True)
    )
    return f'{_WORDS_STYLE}<ul class="captioner-words">{items}</ul>'


_WORDS_STYLE = """<style>
.captioner-words { display: flex; flex-wrap: wrap; gap: .35rem; list-style: none }
ul.captioner-words { padding: 0 !important; margin: 0 !important }
.captioner-words li {
  padding: .3rem .6rem; border-radius: 6px; text-align: center; margin: 0;
  background: color-mix(in srgb, #2f8f86 calc(var(--probability) * 65%), rgba(128, 128, 128, .12));
}
.captioner-words small { display: block; font-size: .8rem }
</style>"""


def bars(candidates: Sequence[Candidate], chosen: str, headings: tuple[str, str], caption: str) -> str:
    """A bar chart of words as a table: its bars are drawn behind the numbers."""
    rows = "".join(
        f'<tr{" class=chosen" if candidate.word == chosen else ""}><th scope="row">{escape(candidate.word)}</th>'
        f'<td><i style="width:{100 * candidate.probability:.2f}%"></i><b>{percent(candidate.probability)}</b></td></tr>'
        for candidate in candidates
    )
    return (
        f'{_BARS_STYLE}<table class="captioner-bars"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{''.join(f'<th>{escape(heading)}</th>' for heading in headings)}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


_BARS_STYLE = """<style>
.captioner-bars { width: 100%; border-collapse: collapse; border: 0 }
.captioner-bars caption { text-align: left; padding-bottom: .5rem }
.captioner-bars thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden }
.captioner-bars th, .captioner-bars td { border: 0; padding: .15rem .5rem .15rem 0; font-weight: 400; text-align: left }
.captioner-bars th { white-space: nowrap; width: 1% }
.captioner-bars td { position: relative; padding-left: .4rem }
.captioner-bars td i { position: absolute; inset: .2rem auto .2rem 0; background: currentColor; opacity: .22 }
.captioner-bars td b { position: relative; font-weight: 400; font-variant-numeric: tabular-nums }
.captioner-bars .chosen th, .captioner-bars .chosen b { font-weight: 700 }
.captioner-bars .chosen i { opacity: .45 }
</style>"""


def heat_overlay(picture: Image.Image, heat: Tensor) -> Image.Image:
    """The picture, greyed, with a heat map (GRID, GRID) in nats over it: the full colour at STRONG."""
    strength = (heat.clamp(min=0.0) / STRONG).clamp(max=1.0).numpy()
    mask = Image.fromarray((255 * strength).astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    grey = Image.blend(picture, picture.convert("L").convert("RGB"), 0.75)
    warm = Image.blend(picture, Image.new("RGB", picture.size, (255, 120, 0)), 0.55)
    return Image.composite(warm, grey, mask)


def strongest(heat: Tensor) -> tuple[str, float]:
    """Where a heat map, (GRID, GRID), is strongest, one of nine places by their names in `texts`, and how strong."""
    row, column = divmod(int(heat.argmax()), GRID)
    return _PLACES[3 * row // GRID][3 * column // GRID], float(heat.max())


def states(rows: Sequence[tuple[str, Tensor]], describe: str) -> str:
    """Hidden states, (H,) each in -1 to 1, as strips under each other; `describe` makes alt texts, with {word}."""
    body = "".join(
        f'<tr><th scope="row">{escape(word)}</th>'
        f'<td><img src="{_strip(hidden)}" alt="{escape(describe.replace("{word}", word))}"></td></tr>'
        for word, hidden in rows
    )
    return f'{_STATES_STYLE}<table class="captioner-states"><tbody>{body}</tbody></table>'


_STATES_STYLE = """<style>
.captioner-states { width: 100%; border-collapse: collapse; border: 0 }
.captioner-states th, .captioner-states td { border: 0; padding: 1px .5rem 1px 0; font-weight: 400; text-align: right }
.captioner-states th { white-space: nowrap; width: 1% }
.captioner-states img { width: 100%; height: 1.5rem; image-rendering: pixelated; display: block; border-radius: 2px }
</style>"""


def _strip_pixels(hidden: Tensor) -> npt.NDArray[np.uint8]:
    """(H,) -> (1, H, 4) RGBA: blue below zero, orange above, transparent at zero."""
    values = hidden.clamp(-1, 1).numpy()
    pixels = np.empty((1, len(values), 4), np.uint8)
    pixels[0, :, :3] = np.where(values[:, None] < 0, (30, 100, 220), (235, 120, 0))
    pixels[0, :, 3] = 255 * np.abs(values)
    return pixels


def _strip(hidden: Tensor) -> str:
    """(H,) as a PNG of one row, as a `data:` URI."""
    file = io.BytesIO()
    Image.fromarray(_strip_pixels(hidden)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def beam_tree(beam: Sequence[Sequence[Branch]], winner: Sequence[str], end: str, describe: str) -> str:
    """The hypotheses of a beam as a tree that grows to the right; `winner` is the caption's words with its end."""
    path = _path(beam, winner)
    wide, high, left, top = 118, 56, 8, 8
    place = {(t, i): (left + t * wide, top + i * high) for t, step in enumerate(beam) for i in range(len(step))}
    lines, boxes = [], []
    for t, step in enumerate(beam):
        for i, branch in enumerate(step):
            x, y = place[t, i]
            won = path.get(t) == i
            if branch.parent is not None:
                x0, y0 = place[t - 1, branch.parent]
                on = won and path.get(t - 1) == branch.parent
                lines.append(
                    f'<path class="{"won" if on else ""}" d="M{x0 + wide - 22},{y0 + 20} C{x - 8},{y0 + 20} '
                    f'{x - 14},{y + 20} {x},{y + 20}"/>'
                )
            word = end if branch.score is not None else branch.word
            number = f"{branch.logprob:.1f}" if branch.score is None else f"{branch.logprob:.1f} → {branch.score:.2f}"
            boxes.append(
                f'<g class="{"won" if won else ""}"><rect x="{x}" y="{y}" width="{wide - 22}" height="40" rx="6"/>'
                f'<text x="{x + (wide - 22) / 2}" y="{y + 17}">{escape(word)}</text>'
                f'<text class="number" x="{x + (wide - 22) / 2}" y="{y + 33}">{number}</text></g>'
            )
    width = left + len(beam) * wide
    height = top + max((len(step) for step in beam), default=0) * high
    return (
        f'{_TREE_STYLE}<div class="captioner-tree" tabindex="0" role="group" aria-label="{escape(describe)}">'
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(describe)}">{"".join(lines)}{"".join(boxes)}</svg></div>'
    )


_TREE_STYLE = """<style>
.captioner-tree { overflow-x: auto; padding-bottom: .5rem }
.captioner-tree svg { display: block; font-family: inherit; max-width: none }
.captioner-tree path { fill: none; stroke: currentColor; stroke-opacity: .25 }
.captioner-tree path.won { stroke: #2f8f86; stroke-opacity: 1; stroke-width: 2.5 }
.captioner-tree rect { fill: currentColor; fill-opacity: .06 }
.captioner-tree .won rect { fill: #2f8f86; fill-opacity: .35 }
.captioner-tree text { fill: currentColor; text-anchor: middle; font-size: 14px }
.captioner-tree .number { font-size: 11px; opacity: .75; font-variant-numeric: tabular-nums }
</style>"""


def _path(beam: Sequence[Sequence[Branch]], winner: Sequence[str]) -> dict[int, int]:
    """The winner's place at each step. Its words alone do not tell it: others may have ended in the same way."""
    beginnings: list[tuple[str, ...]] = [()]
    for t, step in enumerate(beam):
        before = beginnings
        beginnings = [(*before[branch.parent or 0], branch.word) for branch in step]
        if tuple(winner) in beginnings:
            path, place = {}, beginnings.index(tuple(winner))
            for back in range(t, -1, -1):
                path[back] = place
                place = beam[back][place].parent or 0
            return path
    return {}


def pipeline(describe: str, size: int, feature_size: int) -> str:
    """Picture of `size` pixels -> encoder -> feature -> h_0 -> words, as one drawing."""
    return _PIPELINE.replace("PARTS", _pipeline_parts(size, feature_size)).replace("DESCRIBE", escape(describe))


_PIPELINE = """<style>
.captioner-pipeline { width: 100%; max-width: 60rem; height: auto; font: inherit }
.captioner-pipeline .box { fill: currentColor; fill-opacity: .07; stroke: currentColor; stroke-opacity: .35 }
.captioner-pipeline .key { fill: #2f8f86; fill-opacity: .3; stroke: #2f8f86 }
.captioner-pipeline text { fill: currentColor; text-anchor: middle; font-size: 15px }
.captioner-pipeline .small { font-size: 12px; opacity: .8 }
.captioner-pipeline path { fill: none; stroke: currentColor; stroke-opacity: .6; stroke-width: 1.5 }
.captioner-pipeline .head { fill: currentColor; fill-opacity: .6; stroke: none }
</style>
<svg class="captioner-pipeline" viewBox="0 0 860 250" role="img" aria-label="DESCRIBE">
PARTS
</svg>"""


def _pipeline_parts(size: int, feature_size: int) -> str:
    def box(x: int, y: int, width: int, height: int, text: str, small: str = "", kind: str = "box") -> str:
        middle = x + width / 2
        return (
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'
            f'<text x="{middle}" y="{y + height / 2 + (0 if small else 5)}">{text}</text>'
            + (f'<text class="small" x="{middle}" y="{y + height / 2 + 17}">{small}</text>' if small else "")
        )

    def arrow(x0: int, y0: int, x1: int, y1: int) -> str:
        tip = f"{x1},{y1}"
        wings = (
            f"{x1 - 8},{y1 - 4} {x1 - 8},{y1 + 4}"
            if y0 == y1
            else f"{x1 - 4},{y1 + (8 if y1 < y0 else -8)} {x1 + 4},{y1 + (8 if y1 < y0 else -8)}"
        )
        return f'<path d="M{x0},{y0} L{x1},{y1}"/><polygon class="head" points="{tip} {wings}"/>'

    def label(x: int, y: int, text: str, kind: str = "small") -> str:
        return f'<text class="{kind}" x="{x}" y="{y}">{text}</text>'

    parts = [box(4, 90, 84, 64, "picture", f"{size} × {size}"), arrow(88, 122, 110, 122)]
    # The convolutional network: ever smaller maps.
    for x, height in ((112, 110), (136, 84), (160, 60), (184, 38)):
        parts.append(f'<rect class="box" x="{x}" y="{122 - height / 2}" width="16" height="{height}" rx="3"/>')
    parts += [label(156, 200, "MobileNetV2"), arrow(202, 122, 224, 122)]
    parts += [box(226, 70, 62, 104, "v", str(feature_size)), label(257, 200, "feature"), arrow(288, 122, 318, 122)]
    parts += [box(320, 96, 66, 52, "h₀", kind="key"), label(353, 168, "tanh(W v + b)")]
    words = ("&lt;start&gt;", "a", "dog", "runs", "&lt;end&gt;")
    for t in range(4):
        x, middle = 418 + 112 * t, 458 + 112 * t
        parts += [arrow(x - 32, 122, x, 122), box(x, 96, 80, 52, "GRU", f"h{chr(0x2081 + t)}")]
        parts += [label(middle, 226, words[t], ""), arrow(middle, 208, middle, 150)]
        parts += [arrow(middle, 96, middle, 50), label(middle, 40, words[t + 1], "")]
    return "".join(parts)
