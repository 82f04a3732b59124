"""Pictures that are no ordinary photographs, to find a captioner's limits: drawn, computed, or damaged photographs.

A kind and a number always give the same picture.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps

from captioner.errors import OptionError, OutputError
from captioner.files import replacing
from captioner.pictures.drawings import DRAWINGS
from captioner.pictures.load import ImageSource, load_image
from captioner.pictures.sample_pictures import SAMPLES
from captioner.pictures.sheet import colour

_Field: TypeAlias = npt.NDArray[np.float64]
_Rng: TypeAlias = np.random.Generator


def _clouds(rng: _Rng, shape: Sequence[int], cells: int = 3, octaves: int = 5) -> _Field:
    """Smooth noise (H, W), mostly from 0 to 1, of so many spots across and of ever smaller ones."""
    total = np.zeros(shape[:2])
    for octave in range(octaves):
        spots = rng.random((cells << octave,) * 2, np.float32)
        field = Image.fromarray(spots).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
        total += np.asarray(field) / 2 ** (octave + 1)
    mean: _Field = total / (1 - 0.5**octaves)
    return mean


def _fractal(rng: _Rng, x: _Field, y: _Field) -> _Field:
    """A Julia set, by how soon its points escape."""
    z = (x - 0.5) * 3 + 1j * (y - 0.5) * 3
    constant, steps = 0.7885 * np.exp(1j * rng.uniform(1.5, 4.7)), np.zeros(x.shape)
    for _ in range(40):
        inside = np.abs(z) < 2
        steps += inside
        z = np.where(inside, z * z + constant, z)
    return np.sqrt(steps / 40)


def _bricks(rng: _Rng, x: _Field, y: _Field) -> _Field:
    rows = y * rng.uniform(5, 16)
    along = x * rng.uniform(3, 8) + np.floor(rows) % 2 / 2
    each = np.sin(np.floor(rows) * 12.9 + np.floor(along) * 78.2) * 0.2 + 0.6  # every brick has its own shade
    return np.where((rows % 1 < 0.12) | (along % 1 < 0.05), 0.0, each) + 0.2 * _clouds(rng, x.shape, 30, 2)


def _x_ray(rng: _Rng, x: _Field, y: _Field) -> _Field:
    """A body in grey with two dark lungs, ribs and a spine."""
    mirrored, wide = np.abs(x / x.max() - 0.5), rng.uniform(0.15, 0.2)
    lungs = np.exp(-(((mirrored - wide) / 0.1) ** 2) - ((y - 0.45) / rng.uniform(0.2, 0.3)) ** 4)
    ribs = np.sin(rng.uniform(40, 60) * (y + mirrored)) ** 2 * lungs
    body, spine = np.exp(-((mirrored / 0.4) ** 4)), np.exp(-((mirrored / 0.03) ** 2))
    picture: _Field = 0.6 * body + 0.3 * spine + 0.2 * ribs - 0.5 * lungs
    return picture


def _satellite(rng: _Rng, x: _Field, y: _Field) -> _Field:
    """Fields, roads and a river from above."""
    a, b = x * rng.uniform(3, 8) + y * rng.uniform(-1, 1), y * rng.uniform(3, 8)
    patches = rng.random((40, 40))[np.floor(a).astype(int) % 40, np.floor(b).astype(int) % 40]
    river = np.abs(_clouds(rng, x.shape, 2, 3) - 0.5) < rng.uniform(0.01, 0.03)
    return np.where(river | (a % 1 < 0.04) | (b % 1 < 0.03), river, patches) + 0.15 * _clouds(rng, x.shape, 20)


# Each from a place (x, y) in units of the shorter side to a value, which colours follow.
_FIELDS: dict[str, Callable[[_Rng, _Field, _Field], _Field]] = {
    "white-noise": lambda rng, x, y: rng.random((*x.shape, int(rng.choice((1, 3))))),
    "coarse-noise": lambda rng, x, y: _clouds(rng, x.shape, int(rng.integers(20, 90)), 1) * 2 - 0.5,
    "clouds": lambda rng, x, y: _clouds(rng, x.shape) * 2 - 0.5,
    "gradient": lambda rng, x, y: np.hypot((t := rng.random()) * (x - rng.random()), (1 - t) * (y - rng.random())) * 2,
    "blank": lambda rng, x, y: rng.random() + rng.choice((0, 0.01, 0.05)) * rng.standard_normal(x.shape),
    "stripes": lambda rng, x, y: np.sin(rng.uniform(15, 150) * (x + y * rng.uniform(-2, 2))) * rng.uniform(1, 9),
    "checks": lambda rng, x, y: np.floor(x * (n := rng.uniform(4, 25))) % 2 * 0.5 + np.floor(y * n) % 2 * 0.5,
    "weave": lambda rng, x, y: np.abs(np.maximum(np.sin((n := rng.uniform(40, 160)) * x), np.sin(n * y))),
    "wood": lambda rng, x, y: 0.5 + 0.4 * np.sin(rng.uniform(40, 120) * (y + 0.4 * _clouds(rng, x.shape, 2, 4))),
    "bricks": _bricks,
    "marble": lambda rng, x, y: np.abs(np.sin(rng.uniform(3, 9) * (x + y) + 9 * _clouds(rng, x.shape))) ** 0.5,
    "fractal": _fractal,
    "x-ray": _x_ray,
    "satellite": _satellite,
    "night": lambda rng, x, y: 0.12 * rng.random(x.shape) + (_clouds(rng, x.shape, 12, 2) > rng.uniform(0.75, 1)) * 0.8,
}
_PALETTES = {  # the other kinds have any colours
    "wood": ((70, 40, 15), (200, 140, 80)),
    "bricks": ((185, 180, 170), (130, 55, 40), (200, 100, 70)),
    "x-ray": ((0, 0, 0), (255, 255, 255)),
    "satellite": ((50, 60, 45), (80, 115, 60), (165, 155, 95), (120, 130, 140)),
    "night": ((0, 0, 5), (250, 220, 150)),
}


def _compute(kind: str, seed: str) -> Image.Image:
    """A field in two to four colours."""
    chance = random.Random(seed)
    rng, side = np.random.default_rng(chance.getrandbits(64)), chance.randint(160, 400)
    y, x = np.mgrid[: round(side * chance.choice((1, 1, 1.4))), : round(side * chance.choice((1, 1.3, 1.6)))] / side
    values = _FIELDS[kind](rng, x, y)
    if values.ndim == 3:
        return Image.fromarray((255 * values).astype(np.uint8).repeat(3 // values.shape[2], 2))
    shades = _PALETTES.get(kind) or [colour(chance, 0.0, 1.1) for _ in range(chance.randint(2, 4))]
    steps = np.linspace(0, 1, len(shades))
    channels = [np.interp(values, steps, [shade[channel] for shade in shades]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def _faint(image: Image.Image, rng: random.Random, before: str) -> Image.Image:
    return Image.blend(Image.new("RGB", image.size, before), image, rng.uniform(0.02, 0.08))


def _corner(image: Image.Image, rng: random.Random) -> Image.Image:
    side = round(min(image.size) * rng.uniform(0.06, 0.12))
    x, y = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
    return image.crop((x, y, x + side, y + side)).resize((320, 320), Image.Resampling.BICUBIC)


def _coarse(image: Image.Image, rng: random.Random) -> Image.Image:
    small = image.resize((side := rng.randint(6, 14), side))
    return small.resize(image.size, Image.Resampling.NEAREST)


def _jpeg(image: Image.Image, rng: random.Random) -> Image.Image:
    image.resize((image.width // 4, image.height // 4)).save(file := io.BytesIO(), "JPEG", quality=rng.randint(1, 3))
    return Image.open(file).resize(image.size)


def _shuffled(image: Image.Image, rng: random.Random) -> Image.Image:
    side = rng.randint(4, 8)
    w, h = image.width // side, image.height // side
    places = [(w * (place % side), h * (place // side)) for place in range(side * side)]
    result = Image.new("RGB", (w * side, h * side))
    for (x, y), to in zip(places, rng.sample(places, len(places)), strict=True):
        result.paste(image.crop((x, y, x + w, y + h)), to)
    return result


def _edges(image: Image.Image, rng: random.Random) -> Image.Image:
    lines = image.convert("L").filter(ImageFilter.FIND_EDGES)
    return (ImageOps.invert(lines) if rng.random() < 0.5 else lines).convert("RGB")


_DAMAGES: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "upside-down": lambda image, rng: image.transpose(Image.Transpose.ROTATE_180),
    "corner": _corner,
    "blurred": lambda image, rng: image.filter(ImageFilter.GaussianBlur(min(image.size) * rng.uniform(0.06, 0.15))),
    "dark": lambda image, rng: _faint(image, rng, "black"),
    "overexposed": lambda image, rng: _faint(image, rng, "white"),
    "coarse": _coarse,
    "jpeg": _jpeg,
    "shuffled": _shuffled,
    "inverted": lambda image, rng: ImageOps.invert(image),
    "edges": _edges,
}

KINDS = (*DRAWINGS, *_FIELDS)  # to draw
DAMAGES = tuple(_DAMAGES)  # to make from a photograph


def draw(kind: str, number: int) -> Image.Image:
    """The picture of this number of a kind in KINDS, in RGB."""
    seed = f"{kind} {number}"
    return DRAWINGS[kind](seed) if kind in DRAWINGS else _compute(kind, seed)


def damage(kind: str, image: Image.Image, number: int) -> Image.Image:
    """A photograph in RGB, damaged as a kind in DAMAGES says. The number decides how far and where."""
    rng = random.Random(f"{kind} {number}")
    return _DAMAGES[kind](image if rng.random() < 0.5 else ImageOps.mirror(image), rng)


def make_unfamiliar(folder: str | Path, number: int = 20, photographs: Sequence[ImageSource] = ()) -> list[Path]:
    """Write `number` pictures of every kind as folder/kind/0000.png, and return their paths.

    The kinds in DAMAGES take the photographs in turn, or else the sample photographs of the package.
    Raises OutputError if the folder of a kind exists, OptionError for fewer than 1 picture, ImageError for a photograph
    that cannot be read.
    """
    if number < 1:
        raise OptionError(f"{number} pictures (--number): make at least 1 of every kind")
    sources, folder = photographs or list(SAMPLES.values()), Path(folder)
    if there := next(filter(Path.exists, (folder / kind for kind in KINDS + DAMAGES)), None):
        raise OutputError(f"{there}: is there already: name another folder")
    files = []
    for place in range(number):
        photograph = load_image(sources[place % len(sources)])
        for kind in KINDS + DAMAGES:
            image = draw(kind, place) if kind in KINDS else damage(kind, photograph, place)
            files.append(folder / kind / f"{place:04}.png")
            with replacing(files[-1], "wb") as file:
                image.save(file, "PNG", compress_level=1)
    return files
