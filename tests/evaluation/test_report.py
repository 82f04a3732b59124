"""The report: everything in it, nothing from outside, nothing let through."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sentences import scenes

from captioner.evaluation.report import _usages, report
from captioner.evaluation.scores import Evaluation, score_pictures
from captioner.pictures.load import thumbnail

NAMES = [f"{number:02}.jpg" for number in range(60)]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    captions, references = scenes(60)
    found = score_pictures(dict(zip(NAMES, captions, strict=True)), dict(zip(NAMES, references, strict=True)))
    return dataclasses.replace(found, recipe="metrics:all|<recipe>")


def page_of(evaluation: Evaluation, preview: Callable[[Path], str | None] = thumbnail, **changes: Any) -> str:
    """The report of an evaluation with some of its fields changed."""
    return "".join(report(dataclasses.replace(evaluation, **changes), preview))


class Page(HTMLParser):
    """Tags as they open and close, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.links: list[str] = []
        self.cells: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "html"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        if tag != "html":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_the_page_is_whole_and_needs_nothing_else(evaluation: Evaluation) -> None:
    text = page_of(
        evaluation, lambda path: f"data:image/jpeg;base64,{path}", files={name: Path(name) for name in NAMES}
    )
    page = Page(text)
    assert page.open == []
    assert page.tags["svg"] == 4
    assert page.tags["article"] == 36, "best, worst and random, 12 each"
    assert page.tags["img"] == 36
    assert page.tags["script"] == page.tags["link"] == 0
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert not re.search(r"url\(|@import|https?:", text)
    assert "width=device-width" in text
    assert "prefers-color-scheme: dark" in text


def test_the_numbers_are_there(evaluation: Evaluation) -> None:
    text = page_of(evaluation)
    cells = Page(text).cells
    for _, scores in evaluation.rows():
        assert f"{scores['bleu_4']:.1f}" in cells
        assert f"{scores['cider']:.1f}" in cells
    assert f"“{evaluation.floor['caption']}”" in text
    assert "metrics:all|&lt;recipe&gt;" in text
    assert "<img" not in text, "no pictures were given"


def test_best_and_worst_captions_are(evaluation: Evaluation) -> None:
    text = page_of(evaluation)
    best, worst = text.index("Best captions"), text.index("Worst captions")
    ranked = sorted(evaluation.pictures, key=lambda picture: picture.cider)
    assert ranked[-1].name in text[best:worst]
    assert ranked[0].name in text[worst : text.index("Random captions")]
    assert ranked[0].name not in text[best:worst]
    assert all(reference in text[best:worst] for reference in ranked[-1].references)


def test_the_most_frequent_captions_come_first() -> None:
    captions = ["a dog", "A dog.", "a cat", "a bird"]
    names = NAMES[:4]
    found = score_pictures(dict(zip(names, captions, strict=True)), {name: ["a dog", "a fish"] for name in names})
    cells = Page(page_of(found)).cells
    place = cells.index("a dog")
    assert cells[place : place + 3] == ["a dog", "2", "50.0\u00a0%"]


def test_words_show_their_probabilities(evaluation: Evaluation) -> None:
    text = page_of(evaluation, words=dict.fromkeys(NAMES, (("zebra", 0.987),)))
    assert 'style="--p:0.987">zebra<small aria-hidden="true">99</small>' in text
    assert "its probability in %" in text
    assert "its probability in %" not in page_of(evaluation)


def test_everything_is_escaped() -> None:
    evil = '<script>alert("1")</script>'
    names = [f'{evil}".jpg', "b.jpg"]
    found = score_pictures(dict.fromkeys(names, evil), {name: [evil, "a dog"] for name in names})
    text = page_of(found, recipe=evil, words={names[0]: ((evil, 0.5),)})
    assert "<script" not in text
    assert Page(text).tags["script"] == 0


def test_odd_evaluations_have_a_report() -> None:
    for captions, references in (
        ({"a": "a dog"}, {"a": ["a dog"]}),
        ({"a": ""}, {"a": ["a dog", "a cat"]}),
        ({"a": "fish", "b": "x " * 80}, {"a": ["a dog"], "b": ["a cat"]}),
    ):
        page = Page(page_of(score_pictures(captions, references)))
        assert page.open == []


def test_word_usage_by_hand() -> None:
    # 10 words against 20. "dog": 5 of 10, 5 of 20; expected share 10/30.
    # G2 = 2 (5 ln(5 / (10/3)) + 5 ln(5 / (20/3))) = 2 (5 ln 1.5 + 5 ln 0.75) = 1.1778
    usages = {u.word: u for u in _usages(Counter(dog=5, cat=5), Counter(dog=5, cat=10, bird=5))}
    assert usages["dog"].captions == 500
    assert usages["dog"].references == 250
    assert usages["dog"].evidence == pytest.approx(1.1778, abs=1e-4)
    assert usages["cat"].evidence == pytest.approx(0, abs=1e-9)
    assert usages["bird"].captions == 0
    assert [u.word for u in _usages(Counter(dog=5, cat=5), Counter(dog=5, cat=10, bird=5))] == ["bird", "dog", "cat"]


def test_characters_are_called_so_and_stand_without_spaces() -> None:
    captions = {"a": "一只黑狗", "b": "一只黑狗", "c": "两个人"}
    found = score_pictures(captions, {name: [text, "一只狗在跑"] for name, text in captions.items()}, "character")
    text = page_of(found, words={"a": (("黑", 0.5), ("狗", 0.25))})
    cells = Page(text).cells
    assert cells[cells.index("一只黑狗") + 1] == "2"
    assert "狗" in cells, "of the characters used too often or too rarely"
    assert "Per 1,000 characters" in text
    assert ">characters<" in text, "at the axis"
    assert ">words<" not in text
    assert '<small aria-hidden="true">50</small></span><span class="word"' in text
