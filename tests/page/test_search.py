"""A search by description: which pictures it finds, what it says of words, and where there is none."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from conftest import draw_picture, make_checkpoint
from streamlit.testing.v1 import AppTest

import captioner
from captioner.network.checkpoint import save_checkpoint
from captioner.page import search
from captioner.page.folder import Folder
from captioner.page.search import FileSearch, reader_of
from captioner.page.work import BEST

PICTURES = BEST + 5
SENTENCE = "a dog"


@pytest.fixture(scope="module")
def model(finder_checkpoint_file: Path, tiny_checkpoint_file: Path) -> Iterator[captioner.Captioner]:
    """A model that finds pictures, which the page then takes for the shipped one, beside one that finds none."""
    with pytest.MonkeyPatch.context() as patch:
        files = {"flickr8k": finder_checkpoint_file, "flickr8k-zh": tiny_checkpoint_file}
        patch.setattr("captioner.page.models.shipped_checkpoints", lambda: files)
        st.cache_resource.clear()
        yield captioner.load(finder_checkpoint_file)
    st.cache_resource.clear()


def script() -> None:
    """The view of many pictures, as the navigation would show it."""
    from captioner.page import main

    main.draw(main.VIEWS["folder"])


def png(number: int) -> bytes:
    file = io.BytesIO()
    draw_picture(number).save(file, "PNG")
    return file.getvalue()


def ranked(model: captioner.Captioner, pictures: dict[str, bytes]) -> list[str]:
    """The names of pictures in the order of their products with the sentence."""
    reader = model.reader()
    vectors = reader.pictures(model.encode(list(pictures.values())))
    scores = dict(zip(pictures, vectors @ reader.sentences([SENTENCE])[0], strict=True))
    return sorted(scores, key=lambda name: -scores[name])


def look_for(page: AppTest, **wanted: Any) -> dict[str, Any]:
    """What the list is told once somebody has searched."""
    batch = page.session_state.kept["batch"]
    number = batch.done.get("tab", 0) + 1
    batch.receive("tab", [{"show": wanted, "number": number}])
    page.run()
    assert not page.exception
    (mounted,) = [element for element in page.get("bidi_component") if "captioner_work" in element.proto.component_name]
    told: dict[str, Any] = json.loads(mounted.proto.json)
    return told


def paths(told: dict[str, Any]) -> list[str]:
    return [row["path"] for row in told["rows"]]


def test_uploads_are_ordered_by_a_description(model: captioner.Captioner) -> None:
    pictures = {f"{number:02}.png": png(number) for number in range(PICTURES)}
    page = AppTest.from_function(script, default_timeout=60).run()
    files = [(name, data, "image/png") for name, data in pictures.items()]
    page.file_uploader[0].set_value(files).run()
    whole = look_for(page)
    assert (whole["finds"], whole["found"]) == (True, "")
    best = look_for(page, described=SENTENCE)
    assert paths(best) == ranked(model, pictures)[:BEST]
    assert best["found"] == f"The {BEST} best of {PICTURES} pictures, the best match first."
    every = look_for(page, everything=True)
    assert (paths(every), every["more"]) == (ranked(model, pictures)[:24], False)
    assert page.session_state.kept["batch"].shown()[1] == ranked(model, pictures)
    # Together with the other search and filters.
    assert paths(look_for(page, words="1.png")) == [name for name in ranked(model, pictures) if "1.png" in name]
    look_for(page, words="")
    some = look_for(page, described=f"{SENTENCE} qzxv")
    assert some["found"].endswith("The model does not know these words: qzxv.")
    assert len(some["rows"]) == BEST
    none = look_for(page, described="qzxv")
    assert none["found"] == "The model knows none of these words: qzxv. Please use others."
    assert paths(none) == paths(whole)
    back = look_for(page, described="")
    assert (paths(back), back["found"]) == (paths(whole), "")


def test_a_model_without_a_matcher_has_no_box_and_one_chosen_later_finds(model: captioner.Captioner) -> None:
    page = AppTest.from_function(script, default_timeout=60).run()
    page.segmented_control[0].set_value("flickr8k-zh").run()
    page.file_uploader[0].set_value([(f"{number}.png", png(number), "image/png") for number in range(3)]).run()
    without = look_for(page, described=SENTENCE)
    assert (without["finds"], without["found"]) == (False, "")
    page.segmented_control[0].set_value("flickr8k").run()
    told = look_for(page)
    assert (told["finds"], told["found"], sorted(paths(told))) == (
        True,
        "The best match comes first.",
        ["0.png", "1.png", "2.png"],
    )


def test_a_folder_is_ordered_and_no_picture_encoded_twice(
    model: captioner.Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos" / "more").mkdir(parents=True)
    pictures = {name: png(number) for number, name in enumerate(("a.png", "b.png", "more/c.png"))}
    for name, data in pictures.items():
        (tmp_path / "photos" / name).write_bytes(data)
    work = Folder(str(tmp_path / "photos"), "xmp")
    while work.advance(model):
        pass

    def encoded_again(*_: Any, **__: Any) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(captioner.Captioner, "encode_named", encoded_again)
    work.held = True
    work.show({"described": SENTENCE})
    found(work, model)
    assert work.shown()[1] == ranked(model, pictures)
    work.show({"described": ""})
    work.search(model, reader_of(model))
    assert work.answer == search.Answer()


def found(work: Folder, model: captioner.Captioner) -> None:
    """Let the page draw itself until it has the answer."""
    work.search(model, reader_of(model))
    while work.answer.waits:
        assert work.advance(model)
        work.search(model, reader_of(model))


def test_an_answer_that_comes_late_sorts_what_somebody_works_on_anew(
    model: captioner.Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {f"{number}.png": png(number) for number in range(3)}
    for name, data in pictures.items():
        (tmp_path / name).write_bytes(data)
    work = Folder(str(tmp_path), "xmp")
    while work.advance(model):
        pass
    answers = iter([None, [str(tmp_path / name) for name in ("1.png", "2.png", "0.png")]])
    monkeypatch.setattr(FileSearch, "ranked", lambda self, text: next(answers))
    work.show({"described": SENTENCE})
    work.search(model, reader_of(model))
    assert work.answer.waits
    work.receive("tab", [{"hold": True, "number": 1}, {"path": "0.png", "text": "mine", "seen": "", "number": 2}])
    before = work.shown()
    work.search(model, reader_of(model))
    assert work.shown()[0] == ["1.png", "2.png", "0.png"] != before
    assert not work.held


def test_an_index_that_cannot_be_opened_is_told(
    model: captioner.Captioner, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = tmp_path_factory.mktemp("own") / "own.safetensors"
    own.write_bytes(model.path.read_bytes() if model.path else b"")
    changed = captioner.load(own)
    reader = reader_of(changed)
    save_checkpoint(own, make_checkpoint())
    (tmp_path / "a.png").write_bytes(png(1))
    work = Folder(str(tmp_path), "xmp")
    work.show({"described": SENTENCE})
    work.search(changed, reader)
    while work.answer.waits:
        work.advance(model)
        work.search(changed, reader)
    assert "matcher" in work.answer.problem
    assert work.shown()[1] == ["a.png"]
