"""A generated set of pictures, to try everything without a download: one to three coloured shapes, small or large.

Captions do not say where a shape is, because the feature of a frozen encoder, an average over the picture, does not.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from captioner.errors import OptionError, OutputError
from captioner.files import replacing

_COLOURS = {"red": "#d22", "blue": "#22d", "green": "#2a2", "yellow": "#ed2", "white": "#fff", "black": "#111"}
_SHAPES = ("circle", "square", "triangle")
# How many shapes and how large: their centres and half their width, as shares of the picture's side.
_ARRANGEMENTS = {
    "small": (((0.5, 0.5),), 0.12),
    "large": (((0.5, 0.5),), 0.3),
    "two": (((0.27, 0.35), (0.73, 0.65)), 0.18),
    "three": (((0.22, 0.25), (0.78, 0.3), (0.5, 0.77)), 0.18),
}


_CHINESE: dict[str, Any] = {
    **{"red": "红色", "blue": "蓝色", "green": "绿色", "yellow": "黄色", "white": "白色", "black": "黑色"},
    **{"circle": "圆形", "square": "正方形", "triangle": "三角形"},
    **{"small": ("一", "小"), "large": ("一", "大"), "two": ("两", ""), "three": ("三", "")},  # number and size
}


class _Kind(NamedTuple):
    colour: str
    shape: str
    arrangement: str

    def captions(self, language: str) -> tuple[str, ...]:
        """All captions that describe a picture of this kind."""
        if language == "zh":
            colour, shape, (number, size) = map(_CHINESE.__getitem__, self)
            sized = f"{number}个{colour}的{size}{shape}"
            return f"{sized}。", f"图中有{sized}。", f"{number}个{colour}{shape}。"
        colour, shape, arrangement = self
        if arrangement in ("two", "three"):
            several = f"{arrangement} {colour} {shape}s ."
            return several.capitalize(), f"There are {several}", f"A picture of {several}"
        sized = f"{arrangement} {colour} {shape} ."
        return f"A {sized}", f"There is a {sized}", f"A {colour} {shape} ."

    def draw(self, side: int, rng: random.Random) -> Image.Image:
        gray = rng.randrange(110, 190)
        image = Image.new("RGB", (side, side), (gray, gray, gray))
        draw = ImageDraw.Draw(image)
        centres, half = _ARRANGEMENTS[self.arrangement]
        r = side * half * rng.uniform(0.9, 1.1)
        slack = 0.15 if len(centres) == 1 else 0.04  # several shapes must not touch
        for left, top in centres:
            x, y = side * (left + rng.uniform(-slack, slack)), side * (top + rng.uniform(-slack, slack))
            if self.shape == "triangle":
                draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=_COLOURS[self.colour])
            else:
                fill_in = draw.ellipse if self.shape == "circle" else draw.rectangle
                fill_in((x - r, y - r, x + r, y + r), fill=_COLOURS[self.colour])
        return image


def make_shapes(
    folder: str | Path, pictures: int = 270, seed: int = 0, side: int = 96, language: str = "en"
) -> tuple[Path, Path, Path, Path]:
    """Draw pictures of `side` x `side` pixels, with three captions each in English ("en") or Chinese ("zh").

    Every fifth picture is to validate on. Returns the captions file (NAME#0<TAB>caption lines), the folder of the
    pictures, the list of those to learn from, and the list of those to validate on.
    Raises OutputError if one of these exists, OptionError for fewer than 2 pictures or another language.
    """
    if pictures < 2 or language not in ("en", "zh"):
        raise OptionError(f"{pictures} pictures in {language!r}: make at least 2, with language 'en' or 'zh'")
    folder, images = Path(folder), Path(folder, "images")
    files = folder / "captions.token.txt", folder / "train.txt", folder / "val.txt"
    if there := next(filter(Path.exists, (images, *files)), None):
        raise OutputError(f"{there}: is there already: name another folder")
    images.mkdir(parents=True)
    rng = random.Random(seed)
    kinds = list(itertools.starmap(_Kind, itertools.product(_COLOURS, _SHAPES, _ARRANGEMENTS)))
    rng.shuffle(kinds)
    lines, names = [], [f"shape{number:04}.png" for number in range(pictures)]
    for name, kind in zip(names, itertools.cycle(kinds), strict=False):
        with replacing(images / name, "wb") as picture:
            kind.draw(side, rng).save(picture, "PNG")
        lines += [f"{name}#{number}\t{caption}" for number, caption in enumerate(kind.captions(language))]
    parts = lines, [name for number, name in enumerate(names) if number % 5], names[::5]
    for file, part in zip(files, parts, strict=True):
        with replacing(file) as text:
            text.write("\n".join(part) + "\n")
    return files[0], images, files[1], files[2]
