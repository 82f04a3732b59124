"""Captions written by a small grammar: scenes that several people describe, each in other words."""

from __future__ import annotations

import random

_WHO = [
    ("a {0} dog", "the {0} dog", "a big {0} dog", "{0} dog"),
    ("a man in a {0} shirt", "a man wearing a {0} t-shirt", "the man in {0}", "a young man"),
    ("a little girl in a {0} dress", "a girl in {0}", "a small child", "the girl's {0} dress shows as she"),
    ("two boys", "two young boys in {0} shirts", "two children", "the two boys"),
    ("a group of people", "several people", "people in {0} jackets", "a crowd of people"),
    ("a woman with a {0} hat", "a woman in a {0} hat", "the woman", "an older woman"),
]
_DOES = [
    ("is running", "runs", "is running quickly", "races"),
    ("is jumping into the air", "jumps", "leaps", "is jumping up"),
    ("is sitting", "sits", "is sitting down", "rests"),
    ("is playing with a ball", "plays with a ball", "is playing ball", "catches the ball"),
    ("is standing", "stands", "isn't moving", "is standing still"),
]
_WHERE = [
    ("in the grass", "on the grass", "through the green grass", "in a grassy field"),
    ("on the beach", "at the beach", "along the sandy beach", "near the water"),
    ("in the snow", "through the snow", "on a snowy hill", "in deep snow"),
    ("in front of a building", "near a building", "outside of a large building", "on the street"),
    ("in a park", "at the park", "in the park with the trees", "under a tree"),
]
_COLOURS = ("red", "blue", "white", "black", "brown and white", "yellow")


def scenes(count: int, people: int = 5, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """A captioner's caption and `people` references for each of `count` scenes.

    The captioner mistakes one part of a scene in three for another, as real ones do, and now and then stops early.
    """
    draw = random.Random(seed)
    captions, references = [], []
    for _ in range(count):
        scene = [draw.choice(_WHO), draw.choice(_DOES), draw.choice(_WHERE)]
        colour = draw.choice(_COLOURS)
        references.append([_sentence(draw, scene, colour) for _ in range(people)])
        seen = [
            draw.choice(parts) if draw.random() < 0.33 else part
            for part, parts in zip(scene, (_WHO, _DOES, _WHERE), strict=True)
        ]
        words = _sentence(draw, seen, draw.choice((colour, draw.choice(_COLOURS)))).split()
        captions.append(" ".join(words[: draw.choice((2, 3, 5, 40, 40, 40, 40, 40))]))
    return captions, references


def _sentence(draw: random.Random, scene: list[tuple[str, ...]], colour: str) -> str:
    text = " ".join(draw.choice(ways) for ways in scene).format(colour)
    return text[0].upper() + text[1:] + draw.choice((" .", ".", ""))
