"""A generated picture set: coloured shapes in places, with captions. Small enough to learn in a minute."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": "#d22", "blue": "#22d", "green": "#2a2", "yellow": "#ed2", "white": "#fff", "black": "#111"}
SHAPES = ("circle", "square", "triangle")
PLACES = {"on the left": 0.28, "in the middle": 0.5, "on the right": 0.72}


def make_shapes(folder: Path, pictures: int, seed: int = 0, side: int = 96) -> tuple[Path, Path, Path, Path]:
    """Draw pictures and write captions; returns the captions file, the image folder and the two split lists.

    Every fifth picture is for validation. Each picture has three captions: all the ways of saying what it shows.
    """
    rng = random.Random(seed)
    images = folder / "images"
    images.mkdir(parents=True)
    kinds = list(itertools.product(COLOURS, SHAPES, PLACES))
    rng.shuffle(kinds)
    lines, names = [], []
    for index in range(pictures):
        colour, shape, place = kinds[index % len(kinds)]
        name = f"shape{index:04}.png"
        _draw(colour, shape, place, side, rng).save(images / name)
        captions = (f"A {colour} {shape} {place} .", f"There is a {colour} {shape} {place} .", f"A {colour} {shape} .")
        lines += [f"{name}#{number}\t{caption}" for number, caption in enumerate(captions)]
        names.append(name)
    files = folder / "captions.token.txt", folder / "train.txt", folder / "val.txt"
    files[0].write_text("\n".join(lines) + "\n")
    files[1].write_text("\n".join(name for index, name in enumerate(names) if index % 5) + "\n")
    files[2].write_text("\n".join(names[::5]) + "\n")
    return files[0], images, files[1], files[2]


def _draw(colour: str, shape: str, place: str, side: int, rng: random.Random) -> Image.Image:
    gray = rng.randrange(110, 190)
    image = Image.new("RGB", (side, side), (gray, gray, gray))
    x, y = side * (PLACES[place] + rng.uniform(-0.04, 0.04)), side * rng.uniform(0.4, 0.6)
    r = side * rng.uniform(0.16, 0.22)
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=COLOURS[colour])
    elif shape == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill=COLOURS[colour])
    else:
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=COLOURS[colour])
    return image
