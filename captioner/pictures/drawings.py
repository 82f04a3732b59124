"""Documents, screens, charts, diagrams and signs, drawn at random by Pillow alone: pictures that no camera takes."""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import Image

from captioner.pictures.sheet import BLACK, WHITE, WORDS, Sheet, colour

DRAWINGS: dict[str, Callable[[str], Image.Image]] = {}  # from a seed
_Draw = Callable[[Sheet], None]


def _kind(tall: bool | None = False, dark: float = 0.0) -> Callable[[_Draw], _Draw]:
    """Enter a drawing under its name: how its sheet lies (None: either way) and how often it is dark."""

    def enter(function: _Draw) -> _Draw:
        def draw(seed: str) -> Image.Image:
            sheet = Sheet(seed)
            sheet.prepare(sheet.random() < 0.5 if tall is None else tall, dark)
            function(sheet)
            return sheet.image.reduce(2)

        DRAWINGS[function.__name__.replace("_", "-")] = draw
        return function

    return enter


@_kind(dark=0.6)
def code_editor(s: Sheet) -> None:
    side, size, indent = s.choice((0.0, 18.0, 28.0)), s.uniform(1.7, 3), 0
    colours = [s.ink, s.ink, *(s.shade() for _ in range(4))]
    s.box(-1, -1, side + 1, s.h + 2, s.soft)
    for row in range(int(s.h / size / 1.5)):
        y = 1.5 * size * row
        s.text(side + 2.5 * size, y, str(row + 1), size, s.mix(0.4), "ra")
        indent = max(0, min(5, indent + s.choice((-1, 0, 0, 1))))
        x = side + size * (3.5 + 2 * indent)
        for word in s.choices(WORDS, k=s.choice((0, 1, 2, 3, 5, 8))):
            sign = s.choice(("", "(", ")", " =", ":", ".", ", ", "[0]"))
            x += 0.4 * size + s.text(x, y, word + sign, size, s.choice(colours))


@_kind(dark=0.9)
def terminal(s: Sheet) -> None:
    size, y, fill, end = s.uniform(2, 4), 3.0, s.choice((s.ink, s.shade(), (60, 220, 60))), s.uniform(40, 110)
    while y < end:
        x = 2 + s.text(2, y, f"{s.choice(WORDS)}@{s.choice(WORDS)}:~$ ", size, s.shade())
        s.text(x, y, s.words(3).lower(), size)
        for _ in range(s.randint(0, 7)):
            y += 1.3 * size
            s.text(2, y, f"{s.randrange(9999):04}  {s.words(s.randint(1, 9)).lower()}", size, fill)
        y += 1.3 * size


@_kind(tall=True, dark=0.4)
def chat(s: Sheet) -> None:
    y, size = 3.0, s.uniform(2.6, 4)
    while y < s.h - 14:
        mine, lines, w = s.random() < 0.5, s.randint(1, 4), s.uniform(30, 65)
        x, h = (95 - w if mine else 5.0), 1.4 * size * lines + 4
        s.box(x, y, w, h, s.accent if mine else s.mix(0.15), None, 2.5)
        s.paragraph(x + 2.5, y + 2, w - 4, lines, size, WHITE if mine else None)
        y += h + 3
    s.box(5, s.h - 9, 80, 7, s.soft, s.mix(0.3), 3.5)


@_kind(dark=0.4)
def desktop(s: Sheet) -> None:
    s.bar(s.h + 1, s.accent)
    for place in range(s.randint(3, 14)):
        x, y = 4.0 + 13 * (place // 6), 4.0 + 15 * (place % 6)
        s.box(x, y, 7, 7, s.shade(), None, s.choice((0, 1.5)))
        s.text(x + 3.5, y + 8, s.words(1), 2.2, WHITE, "ma")
    for _ in range(s.randint(0, 3)):  # windows
        x, y, w, h = s.uniform(8, s.w / 2), s.uniform(3, 40), s.uniform(35, 75), s.uniform(25, 55)
        s.box(x, y, w, h, s.paper, s.mix(0.5), 1)
        s.box(x, y, w, 5, s.mix(0.25), None, 1)
        s.paragraph(x + 3, y + 8, w - 6, int((h - 10) / 3.6), 2.4)
    s.bar(6, s.mix(0.15), s.h - 5)
    for place in range(s.randint(3, 9)):
        s.box(2 + 6 * place, s.h - 4.7, 4, 4, s.shade(), None, 1)


@_kind(tall=None, dark=0.25)
def web_page(s: Sheet) -> None:
    columns, fill, hero = s.randint(1, 4), s.shade(), s.choice((0, 28))
    s.bar(hero + 9, s.mix(0.3))
    s.bar(10, s.choice((s.accent, s.soft)))
    s.text(4, 3, "     ".join(s.words(1) for _ in range(s.randint(3, 6))), 2.8)
    s.text(s.w / 2, 16, s.words(4) if hero else "", 6, anchor="ma")
    w = (s.w - 4) / columns
    for y in range(hero + 14, int(s.h), s.choice((26, 34))):
        for x in (4 + w * column for column in range(columns)):
            s.box(x, y, w - 4, 11, s.choice((fill, s.soft, s.mix(0.4))), None, 1)
            s.text(x, y + 12, s.words(2), 3)
            s.paragraph(x, y + 16.5, w - 4, 2, 1.8, s.mix(0.7))


@_kind(dark=0.15)
def spreadsheet(s: Sheet) -> None:
    high, wide = s.uniform(3.5, 7), s.uniform(11, 22)
    columns = range(int(s.w / wide) + 1)
    named = [column for column in columns if s.random() < 0.3]
    for row in range(int(s.h / high) + 1):
        s.bar(high, s.soft if row % 2 else s.paper if row else s.accent, row * high)
        for column in columns:
            text = s.words(1) if row == 0 or column in named else f"{s.uniform(0, 2000):,.1f}"
            s.box(column * wide, row * high, wide, high, None, s.mix(0.25))
            s.text(column * wide + 1, row * high + high / 5, text, high / 2)


@_kind(dark=0.3)
def game_screen(s: Sheet) -> None:
    s.bar(s.h + 1, colour(s, 0.1, 0.8))
    tile, shades, ground = s.choice((5.0, 8.0, 10.0)), [s.shade() for _ in range(2)], 2
    for x in (tile * column for column in range(int(s.w / tile) + 1)):
        ground = max(0, min(5, ground + s.choice((-1, 0, 0, 0, 0, 1))))
        for block in (*range(ground), s.choice((-2, -2, -2, 5, 6, 7))):
            s.box(x, s.h - (block + 1) * tile, tile, tile, shades[block % 2], s.ink)
    for _ in range(s.randint(2, 6)):  # figures, the same on the left and the right
        x, y, dot, fill = s.uniform(10, s.w - 10), s.uniform(10, 75), tile / 6, s.shade()
        for place in s.sample(range(32), 20):
            for column in (place % 4, 7 - place % 4):
                s.box(x + dot * column, y + dot * (place // 4), dot, dot, fill)
    s.text(3, 2, f"SCORE {s.randrange(9999)}", 5, WHITE)


@_kind(dark=0.2)
def bar_chart(s: Sheet) -> None:
    x, y, w, h = s.axes()
    bars, groups = s.randint(1, 3), s.randint(3, 12)
    colours, thick = [s.shade() for _ in range(bars)], 0.7 * w / groups / bars
    for place in range(bars * groups):
        high = h * s.uniform(0.1, 0.95)
        at = w / groups * (place // bars + 0.15) + thick * (place % bars)
        s.box(x + at, y + h - high, thick, high, colours[place % bars])
    s.legend(x + w - 20, y + 2, colours[bars == 1 :])


@_kind(dark=0.2)
def line_plot(s: Sheet) -> None:
    x, y, w, h = s.axes()
    colours, steps = [s.shade() for _ in range(s.randint(1, 5))], s.randint(6, 90)
    for fill in colours:
        value, rough, points = s.uniform(0.2, 0.8), s.uniform(0.01, 0.12), []
        for step in range(steps):
            value = min(0.98, max(0.02, value + s.gauss(0, rough)))
            points.append((x + w * step / (steps - 1), y + h * (1 - value)))
        s.line(points, fill, s.choice((0.4, 0.8)))
    s.legend(x + 3, y + 3, colours)


@_kind(dark=0.2)
def scatter_plot(s: Sheet) -> None:
    x, y, w, h = s.axes()
    for _ in range(s.randint(1, 4)):
        fill, r, middle, slope = s.shade(), s.uniform(0.4, 1.4), (s.random(), s.random()), s.uniform(-1, 1)
        for away in (s.gauss(0, 0.15) for _ in range(s.randint(20, 150))):
            across, up = middle[0] + away, middle[1] + slope * away + s.gauss(0, 0.07)
            if 0 < across < 1 and 0 < up < 1:
                s.dot(x + w * across, y + h * up, r, fill)


@_kind(dark=0.2)
def pie_chart(s: Sheet) -> None:
    x, r, angle = s.uniform(50, s.w - 45), s.uniform(25, 38), s.uniform(0, 360)
    colours = [s.shade() for _ in range(s.randint(2, 8))]
    corners = [s.scale * v for v in (x - r, 55 - r, x + r, 55 + r)]
    parts = [s.uniform(1, 6) for _ in colours]
    for part, fill in zip(parts, colours, strict=True):
        s.pen.pieslice(corners, angle, angle := angle + 360 * part / sum(parts), fill, s.paper, round(s.scale / 2))
    s.dot(x, 55, r * s.choice((0, 0, 0.4, 0.6)), s.paper)
    s.text(s.w / 2, 4, s.words(3), 5, anchor="ma")
    s.legend(4, 20, colours)


@_kind(tall=None, dark=0.15)
def flow_diagram(s: Sheet) -> None:
    rows, fill, w, h, corner = s.randint(3, 5), s.choice((s.paper, s.accent)), 22.0, s.uniform(7, 11), s.choice((0, 3))
    before: list[tuple[float, float]] = []
    for row in range(rows):
        number, y = s.randint(1, min(4, int(s.w / 28))), s.h * (row + 0.5) / rows
        now = [(s.w * (place + 0.5) / number, y) for place in range(number)]
        for x, _ in now:
            for a, b in s.sample(before, min(len(before), s.randint(1, 2))):
                s.line([(a, b + h / 2), (a, (b + y) / 2), (x, (b + y) / 2), (x, y - h / 2)], s.ink)
                s.shape([(x, y - h / 2), (x - 1.2, y - h / 2 - 2.5), (x + 1.2, y - h / 2 - 2.5)], s.ink)
            s.box(x - w / 2, y - h / 2, w, h, fill, s.ink, corner)
            s.text(x, y, s.words(s.randint(1, 2)), 2.6, anchor="mm")
        before = now


@_kind(tall=None, dark=0.15)
def street_map(s: Sheet) -> None:
    s.bar(s.h + 1, s.mix(0.08))
    tilt, roads = s.uniform(-0.4, 0.4), []
    for fill in s.choices(((170, 215, 160), (160, 200, 235), (225, 215, 200)), k=s.randint(3, 8)):
        x, y, r = s.uniform(0, s.w), s.uniform(0, s.h), s.uniform(6, 28)
        corners = [(r * s.uniform(0.6, 1.2), 0.7 * turn) for turn in range(9)]
        s.shape([(x + away * math.cos(turn), y + away * math.sin(turn)) for away, turn in corners], fill)
    for across in (False, True):
        at, step = -60.0, s.uniform(8, 22)
        while at < 240:
            at += step * s.uniform(0.6, 1.4)
            ends = [(-5.0, at), (s.w + 5, at + tilt * s.w)] if across else [(at, -5.0), (at - tilt * s.h, s.h + 5)]
            roads.append((s.choice((0.8, 1.2, 1.2, 2.5)), ends))
    for edge, fill in ((0.6, s.mix(0.35)), (0.0, s.paper)):
        for wide, ends in sorted(roads):
            s.line(ends, (240, 190, 90) if wide > 2 and not edge else fill, wide + edge)
    for _ in range(s.randint(5, 16)):
        s.text(s.uniform(2, s.w - 15), s.uniform(2, s.h - 5), s.words(1), s.choice((2, 3)))


@_kind(tall=None)
def qr_code(s: Sheet) -> None:
    s.bar(s.h + 1, s.choice((WHITE, s.paper, s.accent)))
    side, size = s.choice((21, 25, 29, 33)), s.uniform(55, 92)
    x, y, dot = (s.w - size) / 2, s.uniform(4, 96 - size), size / side
    s.box(x - 3, y - 3, size + 6, size + 6, WHITE)
    for place in s.sample(range(side * side), side * side // 2):
        s.box(x + dot * (place % side), y + dot * (place // side), dot, dot, BLACK)
    for column, row in ((0, 0), (side - 7, 0), (0, side - 7)):
        for ring, fill in ((-1, WHITE), (0, BLACK), (1, WHITE), (2, BLACK)):
            s.box(x + dot * (column + ring), y + dot * (row + ring), dot * (7 - 2 * ring), dot * (7 - 2 * ring), fill)


@_kind()
def barcode(s: Sheet) -> None:
    x, y, h, bars = s.uniform(4, 20), s.uniform(5, 30), s.uniform(25, 55), s.randint(40, 90)
    wide = (s.w - 2 * x) / bars
    for place in range(bars):
        s.box(x + wide * place, y, wide * s.choice((0, 0.3, 0.6, 1)), h, BLACK)
    s.text(s.w / 2, y + h + 1, str(s.randrange(10**12)), 7, BLACK, "ma")


@_kind(dark=0.3)
def logo(s: Sheet) -> None:
    x, y, r = s.w / 2, s.uniform(35, 45), s.uniform(14, 28)
    for ring in range(s.randint(1, 4)):
        fill, size, away = s.choice((s.shade(), s.paper)), r * 0.75**ring, s.choice((0, 0, r / 3))
        turns, start = s.choice((3, 4, 6, 40)), s.random()
        angles = [2 * math.pi * (turn + start) / turns for turn in range(turns)]
        s.shape([(x + away + size * math.cos(angle), y + size * math.sin(angle)) for angle in angles], fill)
    s.text(x, y + r + 6, s.words(1).upper(), s.uniform(8, 14), anchor="ma")
    s.text(x, 90, s.words(s.choice((0, 3))), 4, s.mix(0.6), "ma")


@_kind(tall=None)
def text_page(s: Sheet) -> None:
    columns, size = s.randint(1, 5), s.uniform(1.7, 3)
    s.text(s.w / 2, 3, s.words(s.randint(1, 4)), s.uniform(4, 8), anchor="ma")
    w = (s.w - 10) / columns
    for x in (5 + w * column for column in range(columns)):
        y = 18.0
        while (left := int((s.h - 5 - y) / size / 1.4)) > 0:
            y = s.paragraph(x, y, w - 3, min(left, s.randint(2, 8)), size)


@_kind(tall=None, dark=0.2)
def task_list(s: Sheet) -> None:
    s.text(8, 6, s.words(2), s.uniform(5, 9), s.accent)
    size, ticked = s.uniform(2.5, 5), s.random()
    for y in (20 + 2 * size * row for row in range(int((s.h - 24) / size / 2))):
        s.box(8, y, size, size, s.accent if s.random() < ticked else None, s.ink, size / 5)
        s.text(10 + 1.6 * size, y, s.words(s.randint(1, 5)), size)


@_kind(dark=0.2)
def circuit(s: Sheet) -> None:
    column, row = 3, 3
    for _ in range(s.randint(20, 50)):
        lying, ahead = s.random() < 0.5, s.choice((-1, 1))
        to = max(0, min(int(s.w / 13) - 1, column + lying * ahead)), max(0, min(6, row + (not lying) * ahead))
        (x, y), (to_x, to_y) = ((8.0 + 13 * a, 8.0 + 13 * b) for a, b in ((column, row), to))
        s.line([(x, y), (to_x, to_y)], s.ink)
        x, y, (column, row) = (x + to_x) / 2, (y + to_y) / 2, to
        long, high = s.choice(((0.0, 0.0), (1.2, 6.0), (5.0, 5.0), (7.0, 2.4)))  # of a part of the circuit
        w, h = (long, high) if lying else (high, long)
        s.box(x - w / 2, y - h / 2, w, h, s.paper, s.ink)
        s.text(x + 2.5, y + 2, s.choice("RCLQ") + str(s.randrange(20)) if long else "", 2.2)


@_kind(dark=0.15)
def icon(s: Sheet) -> None:
    r, x, y, fill = s.uniform(22, 42), s.w / 2, 50.0, s.choice((s.accent, s.paper, s.ink))
    s.box(x - r, y - r, 2 * r, 2 * r, fill, s.accent, r * s.choice((0.1, 0.4, 1)))
    glyph, a = (s.accent if fill == s.paper else s.paper), r * 0.55
    house = [(-1, 0), (0, -1), (1, 0), (0.7, 0), (0.7, 1), (-0.7, 1), (-0.7, 0)]
    tick, play = [(-1, 0), (-0.2, 0.8), (1, -0.7), (-0.2, 0.4)], [(-0.7, -1), (1, 0), (-0.7, 1)]
    if outline := s.choice((house, tick, play, None, None)):
        s.shape([(x + a * right, y + a * down) for right, down in outline], glyph)
    else:
        s.text(x, y, s.choice("abfgikpstwxAEGKS?!&@#"), 2 * a, glyph, "mm")


@_kind(tall=None)
def cartoon_face(s: Sheet) -> None:
    s.bar(s.h + 1, s.choice((s.paper, s.accent, colour(s, 0.6, 0.9))))
    x, y, r, skin, eye = s.w / 2, s.h / 2, s.uniform(24, 36), colour(s, 0.4, 0.8), s.uniform(0.1, 0.28)
    s.dot(x, y - r * 0.25, r * s.choice((0.9, 1.1, 1.2)), s.shade(), BLACK)  # hair
    s.dot(x, y, r, skin, BLACK, s.uniform(0.85, 1.15))
    brow = s.uniform(-3, 3)
    for side in (-r, r):
        s.dot(x + side * 0.4, y - r * 0.2, r * eye, WHITE, BLACK, 1.2)
        s.dot(x + side * 0.4, y - r * 0.2, r * eye / 2, BLACK)
        s.line([(x + side * 0.6, y - r * 0.55 - brow), (x + side * 0.2, y - r * 0.55 + brow)], BLACK, 1.2)
    mouth = [s.scale * v for v in (x - r * 0.5, y - r * 0.1, x + r * 0.5, y + r * 0.65)]
    s.pen.chord(mouth, 10, 170, s.choice((WHITE, (190, 40, 50))), BLACK, round(s.scale * 0.6))


@_kind(tall=None)
def sheet_music(s: Sheet) -> None:
    gap = s.uniform(1.2, 2.4)
    for staff in range(int((s.h - 10) / gap / 10)):
        y, x = 8 + gap * 10 * staff, 8.0
        for line in range(5):
            s.line([(5, y + gap * line), (s.w - 5, y + gap * line)], s.ink, 0.15)
        while x < s.w - 8:
            at, up = y + gap * s.randint(-1, 9) / 2, s.choice((-0.55, 0.55)) * gap
            s.dot(x, at, gap * 0.62, s.choice((s.ink, s.ink, s.paper)), s.ink, 0.8)
            s.line([(x - up, at), (x - up, at + 6 * up)], s.ink, 0.25)
            x += gap * s.uniform(1.8, 4)


@_kind(tall=None, dark=0.1)
def handwriting(s: Sheet) -> None:
    size, ink, lean, y = s.uniform(3, 7), s.choice((s.ink, s.shade())), s.uniform(0, 0.6), 8.0
    while y < s.h - 3:
        x, end = s.uniform(5, 8), s.w * s.uniform(0.7, 0.95)
        while x < end:  # words, of loops of several heights
            points = []
            for tall in s.choices((0.4, 0.4, 0.4, 0.9, -0.4), k=s.randint(3, 12)):
                for turn in (place * math.pi / 4 for place in range(8)):
                    up = size * tall * (1 - math.cos(turn)) / 2
                    points.append((x + size * (turn / 19 - 0.08 * math.sin(turn)) + lean * up, y - up))
                x += size / 3
            s.line(points, ink, 0.05 * size)
            x += size * 0.7
        y += 2 * size
