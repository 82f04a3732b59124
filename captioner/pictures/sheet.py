"""A sheet to draw documents, screens, charts and signs on: text, lines, boxes and axes, in any colours."""

from __future__ import annotations

import colorsys
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_TEXT = (
    "the of to and in for on with by from data note time page total report value model user file open close menu view "
    "home search about price order account market system method result figure section number report language government"
)
WORDS = _TEXT.split()
Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
_font = cache(ImageFont.load_default)


def colour(rng: random.Random, darkest: float = 0.3, lightest: float = 0.7, strength: float = 1.0) -> Colour:
    """Any hue, as light as asked for (0 is black, 1 is white) and at most as strong."""
    r, g, b = colorsys.hls_to_rgb(
        rng.random(), min(1.0, rng.uniform(darkest, lightest)), strength * rng.random() ** 0.5
    )
    return round(255 * r), round(255 * g), round(255 * b)


class Sheet(random.Random):
    """What is drawn on, and the chance that decides what is drawn. All lengths are hundredths of the shorter side.

    It is kept at twice its size in pixels, so that edges are smooth when it is halved at the end.
    """

    def prepare(self, tall: bool, dark: float) -> None:
        """Choose size and colours. `dark` is how likely light ink on dark paper is."""
        longer = self.uniform(100, 170)
        self.w, self.h = (100.0, longer) if tall else (longer, 100.0)
        self.scale = self.uniform(5, 12)  # pixels
        light, deep = colour(self, 0.9, 1.1, 0.5), colour(self, 0.0, 0.2, 0.6)
        self.paper, self.ink = (deep, light) if self.random() < dark else (light, deep)
        self.accent, self.soft = colour(self), self.mix(0.12)
        self.image = Image.new("RGB", (round(self.w * self.scale), round(self.h * self.scale)), self.paper)
        self.pen = ImageDraw.Draw(self.image)

    def mix(self, share: float) -> Colour:
        """A colour between those of the paper (0) and the ink (1)."""
        pairs = zip(self.paper, self.ink, strict=True)
        r, g, b = (round(first + share * (last - first)) for first, last in pairs)
        return r, g, b

    def shade(self) -> Colour:
        """Any colour that stands out from the paper."""
        return colour(self, 0.3, 0.6) if sum(self.paper) > 380 else colour(self, 0.5, 0.8)

    def box(
        self, x: float, y: float, w: float, h: float, fill: Any = None, line: Any = None, corner: float = 0.0
    ) -> None:
        """A rectangle, perhaps with round corners."""
        corners = [self.scale * v for v in (x, y, x + max(w, 0.1), y + max(h, 0.1))]
        if corner:
            self.pen.rounded_rectangle(corners, corner * self.scale, fill, line, max(1, round(0.4 * self.scale)))
        else:
            self.pen.rectangle(corners, fill, line, max(1, round(0.4 * self.scale)))

    def dot(self, x: float, y: float, r: float, fill: Any = None, line: Any = None, flat: float = 1.0) -> None:
        """A disc or, where `flat` is below 1, a lying ellipse."""
        corners = [self.scale * v for v in (x - r, y - flat * r, x + r, y + flat * r)]
        self.pen.ellipse(corners, fill, line, max(1, round(0.4 * self.scale)))

    def line(self, points: Points, fill: Colour, width: float = 0.4) -> None:
        scaled = [(self.scale * x, self.scale * y) for x, y in points]
        self.pen.line(scaled, fill, max(2, round(width * self.scale)), "curve")

    def shape(self, points: Points, fill: Colour) -> None:
        """A filled polygon."""
        self.pen.polygon([(self.scale * x, self.scale * y) for x, y in points], fill)

    def text(self, x: float, y: float, text: str, size: float, fill: Any = None, anchor: str = "la") -> float:
        """One line of text. Returns its length."""
        font = _font(max(6, round(size * self.scale)))
        self.pen.text((self.scale * x, self.scale * y), text, fill or self.ink, font, anchor)
        return font.getlength(text) / self.scale

    def words(self, number: int) -> str:
        return " ".join(self.choices(WORDS, k=number)).capitalize()

    def paragraph(self, x: float, y: float, w: float, lines: int, size: float, fill: Any = None) -> float:
        """Lines of text, at most w long, the last one shorter. Returns where the next paragraph may begin."""
        letters = int(w / size * 2.1)
        for left in reversed(range(lines)):
            self.text(x, y, self.words(3 + letters // 4)[: letters if left else letters // 2], size, fill)
            y += 1.4 * size
        return y + 0.5 * size

    def bar(self, h: float, fill: Colour, y: float = -1.0) -> None:
        """A bar from the left edge to the right."""
        self.box(-1, y, self.w + 2, h + 1, fill)

    def axes(self) -> tuple[float, float, float, float]:
        """Axes with ticks, labels, titles, perhaps a grid. Returns the area that they enclose: x, y, w, h."""
        x, y, w, h, grid = 14.0, 10.0, self.w - 20, self.h - 26, self.random() < 0.5
        for tick in range(ticks := self.randint(4, 8)):
            at = y + h - h * tick / (ticks - 1)
            self.line([(x - 1.5, at), (x + w if grid else x, at)], self.mix(0.3), 0.2)
            self.text(x - 2.5, at, f"{tick * ticks * 5}", 3, anchor="rm")
            self.text(x + w * (tick + 0.5) / ticks, y + h + 2, f"{2010 + tick}", 3, anchor="ma")
        self.box(x, y, w, h, None, self.choice((None, self.ink)))
        self.line([(x, y), (x, y + h), (x + w, y + h)], self.ink)
        self.text(self.w / 2, 3, self.words(3), 4, anchor="ma")
        self.text(self.w / 2, self.h - 7, self.words(2), 3.2, anchor="ma")
        return x, y, w, h

    def legend(self, x: float, y: float, colours: Sequence[Colour]) -> None:
        for place, fill in enumerate(colours):
            self.box(x, y + 5 * place, 3, 3, fill)
            self.text(x + 5, y + 5 * place, self.words(1), 3)
