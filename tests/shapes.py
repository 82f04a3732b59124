"""A generated picture set: small and large coloured shapes, with captions. Little enough to learn in a minute."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": "#d22", "blue": "#22d", "green": "#2a2", "yellow": "#ed2", "white": "#fff", "black": "#111"}
SHAPES = ("circle", "square", "triangle")
SIZES = {"small": 0.12, "large": 0.3}  # half the width, as a share of the side


def make_shapes(folder: Path, pictures: int, seed: int = 0, side: int = 96) -> tuple[Path, Path, Path, Path]:
    """Draw pictures and write captions; returns the captions file, the image folder and the two split lists.

    Every fifth picture is for validation. Each picture has three captions: all the ways of saying what it shows.
    """
    rng = random.Random(seed)
    images = folder / "images"
    images.mkdir(parents=True)
    kinds = list(itertools.product(COLOURS, SHAPES, SIZES))
    rng.shuffle(kinds)
    lines, names = [], []
    for index in range(pictures):
        colour, shape, size = kinds[index % len(kinds)]
        name = f"shape{index:04}.png"
        _draw(colour, shape, size, side, rng).save(images / name)
        captions = (f"A {size} {colour} {shape} .", f"There is a {size} {colour} {shape} .", f"A {colour} {shape} .")
        lines += [f"{name}#{number}\t{caption}" for number, caption in enumerate(captions)]
        names.append(name)
    files = folder / "captions.token.txt", folder / "train.txt", folder / "val.txt"
    files[0].write_text("\n".join(lines) + "\n")
    files[1].write_text("\n".join(name for index, name in enumerate(names) if index % 5) + "\n")
    files[2].write_text("\n".join(names[::5]) + "\n")
    return files[0], images, files[1], files[2]


def _draw(colour: str, shape: str, size: str, side: int, rng: random.Random) -> Image.Image:
    gray = rng.randrange(110, 190)
    image = Image.new("RGB", (side, side), (gray, gray, gray))
    x, y = side * rng.uniform(0.35, 0.65), side * rng.uniform(0.35, 0.65)
    r = side * SIZES[size] * rng.uniform(0.9, 1.1)
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=COLOURS[colour])
    elif shape == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill=COLOURS[colour])
    else:
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=COLOURS[colour])
    return image
