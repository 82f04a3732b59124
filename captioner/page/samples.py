"""Pictures to try the page with: a photograph that a dependency ships, and drawings made here."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

from PIL import Image, ImageDraw, ImageFilter

from captioner.pictures.load import load_image

WIDTH, HEIGHT = 640, 480
Colour: TypeAlias = "tuple[int, int, int]"


@cache
def sample(name: str) -> Image.Image:
    """One of SAMPLES, RGB."""
    return SAMPLES[name]()


def portrait() -> Image.Image:
    """Grace Hopper (US Navy, public domain), which matplotlib installs as sample data."""
    from matplotlib.cbook import get_sample_data

    return load_image(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))


def beach() -> Image.Image:
    """Somebody between sand and sea."""
    image, draw = _canvas()
    _shade(draw, 0, 190, (120, 180, 230), (215, 232, 240))
    _shade(draw, 190, 320, (40, 110, 150), (90, 165, 185))
    _shade(draw, 320, HEIGHT, (225, 205, 165), (205, 180, 135))
    _strokes(draw, 90, (200, 318), 60, [(150, 205, 215)])
    draw.rectangle((0, 314, WIDTH, 324), fill=(245, 248, 248))
    _strokes(draw, 7000, (332, HEIGHT), 2, [(215, 192, 150), (195, 168, 122), (235, 218, 182)])
    _person(draw, 330, 330, 1.35, (200, 40, 40), (40, 50, 90))
    return image.filter(ImageFilter.GaussianBlur(0.8))


def snow() -> Image.Image:
    """Somebody on skis, mountains behind."""
    image, draw = _canvas()
    _shade(draw, 0, 330, (60, 120, 200), (200, 220, 240))
    draw.polygon([(-80, 340), (140, 110), (300, 340)], fill=(225, 232, 242))
    draw.polygon([(180, 340), (400, 70), (740, 340)], fill=(212, 222, 235))
    draw.polygon([(400, 70), (470, 190), (430, 210), (520, 340), (740, 340)], fill=(190, 203, 222))
    draw.rectangle((0, 330, WIDTH, HEIGHT), fill=(244, 247, 251))
    _strokes(draw, 4000, (334, HEIGHT), 2, [(232, 238, 246), (250, 252, 255)])
    _person(draw, 310, 320, 1.25, (215, 60, 40), (30, 35, 50), hair=(30, 60, 140))
    draw.line([(230, 412), (410, 428)], fill=(20, 20, 30), width=7)
    draw.line([(255, 320), (235, 405)], fill=(40, 40, 40), width=4)
    draw.line([(365, 312), (392, 415)], fill=(40, 40, 40), width=4)
    return image.filter(ImageFilter.GaussianBlur(0.8))


def boat() -> Image.Image:
    """A sailing boat at sunset."""
    image, draw = _canvas()
    _shade(draw, 0, 230, (250, 180, 110), (250, 215, 160))
    _shade(draw, 230, HEIGHT, (70, 100, 140), (30, 60, 100))
    draw.ellipse((430, 130, 510, 210), fill=(255, 240, 190))
    _strokes(draw, 260, (235, HEIGHT), 50, [(110, 140, 170), (240, 190, 130), (50, 80, 120)])
    draw.polygon([(170, 320), (430, 320), (390, 372), (210, 372)], fill=(110, 55, 30))
    draw.line([(300, 320), (300, 110)], fill=(70, 40, 20), width=7)
    draw.polygon([(308, 120), (308, 305), (420, 305)], fill=(245, 240, 230))
    draw.polygon([(292, 140), (292, 305), (200, 305)], fill=(225, 215, 200))
    _person(draw, 240, 300, 0.7, (30, 60, 130), (30, 30, 40))
    return image.filter(ImageFilter.GaussianBlur(0.8))


SAMPLES: dict[str, Callable[[], Image.Image]] = {"portrait": portrait, "beach": beach, "snow": snow, "boat": boat}


def _canvas() -> tuple[Image.Image, Any]:
    image = Image.new("RGB", (WIDTH, HEIGHT))
    return image, ImageDraw.Draw(image)


def _shade(draw: Any, top: int, bottom: int, above: Colour, below: Colour) -> None:
    """From one colour to another, downwards."""
    for y in range(top, bottom):
        t = (y - top) / (bottom - top)
        draw.line([(0, y), (WIDTH, y)], fill=tuple(round(a + (b - a) * t) for a, b in zip(above, below, strict=True)))


def _strokes(draw: Any, count: int, between: tuple[int, int], length: int, colours: list[Colour]) -> None:
    """Short horizontal strokes: waves, sand."""
    chance = random.Random(0)
    for _ in range(count):
        x, y = chance.randint(0, WIDTH), chance.randint(*between)
        draw.line([(x, y), (x + chance.randint(1, length), y)], fill=chance.choice(colours))


def _person(
    draw: Any, x: int, y: int, size: float, shirt: Colour, trousers: Colour, hair: Colour = (60, 40, 30)
) -> None:
    skin = (224, 180, 150)
    for leg in (-28, 26):
        draw.line([(x, y + 15 * size), (x + leg * size, y + 66 * size)], fill=trousers, width=int(15 * size))
    draw.rounded_rectangle((x - 20 * size, y - 42 * size, x + 20 * size, y + 20 * size), 10 * size, fill=shirt)
    for shoulder, hand in ((-18, (-44, -18)), (18, (44, -30))):
        end = x + hand[0] * size, y + hand[1] * size
        draw.line([(x + shoulder * size, y - 32 * size), end], fill=shirt, width=int(11 * size))
        draw.circle(end, 6 * size, fill=skin)
    draw.circle((x, y - 60 * size), 17 * size, fill=skin)
    draw.pieslice((x - 18 * size, y - 82 * size, x + 18 * size, y - 44 * size), 180, 360, fill=hair)
