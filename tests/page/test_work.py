"""Corrections: each message is done once, undo takes the last back, filters and order, and what is downloaded."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from typing import Any

import pytest

import captioner
from captioner.bulk.formats import csv_table, gallery, jsonl
from captioner.inference.results import Row
from captioner.inference.trust import NOT_SURE, UNFAMILIAR
from captioner.page import work as module
from captioner.page.batch import sidecars
from captioner.page.work import Work


class Plain(Work):
    """Pictures that need no captioning."""

    def advance(self, model: captioner.Captioner) -> bool:
        return False

    def left(self) -> tuple[int, int]:
        return len(self.found), len(self.found)


def row(path: str, caption: str, confidence: float, **more: Any) -> Row:
    words = [{"word": word, "probability": 0.5} for word in caption.split()]
    scores = {"logprob": -1.0, "finished": True, "words": words, "end_probability": 0.5}
    return {"path": path, "caption": caption, **scores, "confidence": confidence, "familiar": 0.9, **more}


@pytest.fixture
def work() -> Plain:
    """Four pictures, one of which could not be read."""
    work = Plain()
    rows = [
        row("a.jpg", "a dog", 0.9),
        row("b.jpg", "a cat", 0.2, unsure=NOT_SURE),
        {"path": "c.jpg", "error": "not a picture"},
        row("d.jpg", "a horse", 0.5, unsure=UNFAMILIAR),
    ]
    work.found = {row["path"]: row for row in rows}
    return work


def tell(work: Work, *messages: dict[str, Any], tab: str = "tab") -> None:
    """Send messages as a browser does, with numbers that go on."""
    first = work.done.get(tab, 0) + 1
    work.receive(tab, [{**message, "number": number} for number, message in enumerate(messages, first)])


def write(path: str, text: str, seen: str = "") -> dict[str, Any]:
    return {"path": path, "text": text, "seen": seen}


def captions(work: Work) -> dict[str, str]:
    return {row["path"]: row["caption"] for row in work.captioned()}


def test_a_message_that_comes_again_is_done_once(work: Plain) -> None:
    messages = [{**write("a.jpg", " a  red\ndog "), "number": 1}, {**write("b.jpg", "x"), "number": 2}]
    work.receive("tab", messages)
    work.receive("tab", [*messages, {"undo": True, "number": 3}])
    work.receive("tab", [{"undo": True, "number": 3}])
    work.receive("another", [{**write("d.jpg", "a pony"), "number": 1}])
    assert captions(work) == {"a.jpg": "a red dog", "b.jpg": "a cat", "d.jpg": "a pony"}
    assert work.done == {"tab": 3, "another": 1}


def test_undo_takes_changes_back_one_by_one(work: Plain) -> None:
    before = work.rows()
    tell(work, write("a.jpg", "one"), write("b.jpg", ""), write("a.jpg", "two"), write("a.jpg", "two"))
    for expected in ({"a.jpg": "one", "b.jpg": ""}, {"a.jpg": "one", "b.jpg": "a cat"}, {"a.jpg": "a dog"}):
        tell(work, {"undo": True})
        assert captions(work).items() >= expected.items()
    assert work.undone == (3, "a.jpg")
    assert work.rows() == before
    tell(work, {"undo": True})
    assert work.undone == (4, "")  # there was nothing


def test_what_is_no_picture_with_a_caption_is_left_alone(work: Plain) -> None:
    before = work.rows()
    tell(work, write("../a.jpg", "x"), write("c.jpg", "x"))
    assert work.rows() == before
    assert work.refused == {"c.jpg": ("x", "not a picture")}  # the words are not lost


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({}, ["d.jpg", "b.jpg", "a.jpg", "c.jpg"]),
        ({"order": "by_name"}, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]),
        ({"filter": "to_do"}, ["d.jpg"]),
        ({"filter": "not_sure"}, ["b.jpg"]),
        ({"filter": "unfamiliar"}, ["d.jpg"]),
        ({"filter": "changed"}, ["b.jpg"]),
        ({"words": "CAT"}, ["b.jpg"]),
        ({"words": "d.JPG"}, ["d.jpg"]),
        ({"filter": "everything", "order": 3, "first": -5}, ["d.jpg", "b.jpg", "a.jpg", "c.jpg"]),
    ],
)
def test_filters_and_orders(work: Plain, wanted: dict[str, Any], shown: list[str]) -> None:
    tell(work, write("a.jpg", "a dog"), write("b.jpg", "a black cat"), {"show": wanted})  # the first is accepted
    assert sorted(work.shown()[1]) == sorted(shown)
    if "filter" not in wanted and wanted:
        assert work.shown()[1] == shown


def test_pictures_keep_their_places_while_somebody_works(work: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    assert work.shown() == (["b.jpg", "d.jpg"], ["b.jpg", "d.jpg", "a.jpg", "c.jpg"])
    tell(work, {"hold": True}, write("b.jpg", "a black cat"))
    work.found["e.jpg"] = row("e.jpg", "a bird", 0.1)
    assert work.shown()[1] == ["b.jpg", "d.jpg", "e.jpg", "a.jpg", "c.jpg"]
    tell(work, {"show": {"first": 2}})
    assert work.shown()[0] == ["e.jpg", "a.jpg"]
    tell(work, {"show": {"first": 1000}})
    assert work.shown()[0] == ["c.jpg"]
    tell(work, {"show": {"order": "least_sure"}})  # to sort anew
    assert work.shown() == (["e.jpg", "d.jpg"], ["e.jpg", "d.jpg", "a.jpg", "b.jpg", "c.jpg"])


def test_downloads_hold_what_the_person_wrote(work: Plain) -> None:
    tell(work, write("a.jpg", "a dog"), write("b.jpg", "a black cat"), write("d.jpg", ""))
    lines = {line["path"]: line for line in map(json.loads, jsonl(work.rows()))}
    assert lines["a.jpg"] == {**work.found["a.jpg"], "author": "person"}
    assert lines["b.jpg"] == {"path": "b.jpg", "caption": "a black cat", "author": "person", "familiar": 0.9}
    assert (lines["d.jpg"]["caption"], lines["d.jpg"]["author"]) == ("", "person")
    assert lines["c.jpg"] == work.found["c.jpg"]
    table = csv.DictReader(io.StringIO("".join(csv_table(work.captioned()))))
    assert [(line["path"], line["caption"], line["unsure"]) for line in table] == [
        ("a.jpg", "a dog", ""),
        ("b.jpg", "a black cat", ""),
        ("d.jpg", "", ""),
    ]
    with zipfile.ZipFile(io.BytesIO(sidecars(work))) as archive:
        texts = {name: archive.read(name).decode().strip() for name in archive.namelist()}
    assert texts == {"a.txt": "a dog", "b.txt": "a black cat", "d.txt": ""}
    page = "".join(gallery(work.captioned(), lambda path: None))
    assert "a black cat" in page
    assert "a horse" not in page
    assert page.count("by a person") == 3


def test_accepting_a_caption_of_several_lines_does_not_write_it(work: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    work.found["a.jpg"] = {"path": "a.jpg", "caption": "My dog\nin the snow", "author": "person"}
    monkeypatch.setattr(work, "save", lambda *_: pytest.fail("wrote what was there"))
    tell(work, write("a.jpg", "My dog in the snow", "My dog\nin the snow"))
    assert captions(work)["a.jpg"] == "My dog\nin the snow"
