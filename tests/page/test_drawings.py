"""Drawings say what they show, to the eye and to a screen reader, and take nothing for markup."""

import base64
import io
import re

import pytest
import torch
from PIL import Image

from captioner.inference.explanation import GRID, Branch, Candidate
from captioner.page import drawings

EVIL = "<script>alert(1)</script>"


def test_bars_are_as_long_as_the_probabilities() -> None:
    candidates = [Candidate("dog", 0.62), Candidate(EVIL, 0.004)]
    html = drawings.drawn("bars", candidates=candidates, chosen="dog", headings=("word", "probability"), caption=EVIL)
    assert re.findall(r'width:([\d.]+)%"', html) == ["62.00", "0.40"]
    assert re.findall(r"<b>(.*?)</b>", html) == ["62%", "0.4%"]
    assert html.count("class=chosen") == 1
    assert EVIL not in html


def test_words_stand_with_their_probabilities() -> None:
    html = drawings.drawn("words", words=[("a", 1.0), (EVIL, 0.00001)])
    assert re.findall(r"<small>(.*?)</small>", html) == ["100%", "0.001%"]
    assert EVIL not in html


def test_heat_is_warm_where_hiding_hurts() -> None:
    heat = torch.zeros(GRID, GRID)
    heat[1, 5] = 3.0
    picture = Image.new("RGB", (140, 70), (90, 90, 90))
    overlay = drawings.heat_overlay(picture, heat)
    assert overlay.size == picture.size
    red, _, blue = overlay.getpixel((110, 15))
    assert red > blue + 50
    assert overlay.getpixel((20, 60)) == (90, 90, 90)
    # A part whose hiding makes the word likelier is no place where the network looked.
    assert drawings.heat_overlay(picture, -heat).getpixel((110, 15)) == (90, 90, 90)


@pytest.mark.parametrize(
    ("cell", "place"),
    [((0, 0), "top_left"), ((1, 3), "top"), ((3, 3), "middle"), ((6, 5), "bottom_right"), ((3, 6), "right")],
)
def test_the_strongest_place_has_a_name(cell: tuple[int, int], place: str) -> None:
    heat = torch.full((GRID, GRID), -1.0)
    heat[cell] = 0.5
    assert drawings.strongest(heat) == (place, 0.5)


def test_states_have_a_row_a_word() -> None:
    strip = drawings.strip(torch.tensor([-1.0, 0.0, 1.0]))
    html = drawings.drawn("states", rows=[("dog", strip, "state of dog"), (EVIL, strip, "")])
    assert html.count("<tr>") == 2
    assert 'alt="state of dog"' in html
    assert EVIL not in html
    with Image.open(io.BytesIO(base64.b64decode(strip.partition(",")[2]))) as image:
        assert image.size == (3, 1)
        assert [image.getpixel((x, 0))[3] for x in range(3)] == [255, 0, 255]


def test_the_tree_marks_the_way_of_the_winner() -> None:
    beam = [
        [Branch("a", None, -0.2, None), Branch("the", None, -1.0, None)],
        [Branch("dog", 1, -1.5, None), Branch(EVIL, 0, -1.6, None)],
        [Branch("<end>", 1, -2.0, -0.9), Branch("<end>", 0, -2.1, -1.0)],
    ]
    path = drawings.path_of(beam, ["the", "dog", "<end>"])
    html = drawings.drawn("beam", beam=beam, path=path, end="(end)", description="a tree")
    boxes = re.findall(r'<g class="(won|)"><rect.*?<text[^>]*>(.*?)</text>', html)
    assert boxes == [
        ("", "a"),
        ("won", "the"),
        ("won", "dog"),
        ("", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("", "(end)"),
        ("won", "(end)"),
    ]
    assert html.count('<path class="won"') == 2
    assert "-2.1 → -1.00" in html
    assert drawings.drawn("beam", beam=[], path={}, end="(end)", description="none")  # greedy decoding has no beam


def test_the_drawing_of_the_network_has_the_sizes_of_this_one() -> None:
    known = {"description": EVIL, "size": 320, "encoder": "resnet18", "feature_size": 512}
    html = drawings.drawn("network", **known, cell="LSTM", memory=True)
    for text in ("320 × 320", ">512<", ">resnet18<", ">h₀, c₀<"):
        assert text in html
    assert html.count(">LSTM<") == 4
    assert EVIL not in html
    assert ">h₀<" in drawings.drawn("network", **known, cell="GRU", memory=False)


@pytest.mark.parametrize(("probability", "text"), [(1.0, "100%"), (0.376, "38%"), (0.0415, "4.2%"), (1e-5, "0.001%")])
def test_percent(probability: float, text: str) -> None:
    assert drawings.percent(probability) == text
