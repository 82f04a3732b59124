"""The page through Streamlit's own test runner: no browser, no server; the tiny model stands in for the shipped one."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from conftest import draw_picture, make_checkpoint
from PIL import Image
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import StopException
from streamlit.testing.v1 import AppTest

import captioner
from captioner.network.checkpoint import Checkpoint, save_checkpoint
from captioner.network.config import Trust
from captioner.options import option_specs
from captioner.page import models, pictures
from captioner.page.batch import Batch
from captioner.page.texts import TEXTS
from captioner.page.views.compare import SEEDS
from captioner.pictures.load import load_image
from captioner.pictures.sample_pictures import SAMPLES

ROOT = Path(__file__).parent.parent.parent
SPECS = {spec.name: spec for spec in option_specs(captioner.DecodeOptions)}


def png(image: Image.Image, **options: Any) -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


HEIC = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + b"\0" * 100
DOG, CAT = png(draw_picture(1)), png(draw_picture(2))


@pytest.fixture(scope="module")
def model(tiny_checkpoint_file: Path) -> Iterator[captioner.Captioner]:
    """The tiny model, which the page then takes for the shipped one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captioner.page.models.shipped_checkpoints", lambda: {"flickr8k": tiny_checkpoint_file})
        st.cache_resource.clear()
        yield captioner.load(tiny_checkpoint_file)
    st.cache_resource.clear()


@pytest.fixture
def encoded(model: captioner.Captioner, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one for each time that the page encodes a picture."""
    open_view("caption")  # loads the model, which is then tried once
    calls: list[Any] = []
    encode = captioner.Captioner.encode

    def count(self: captioner.Captioner, images: Any) -> Any:
        # The page gives what it has kept of a picture, these tests the bytes of its file.
        calls.extend(image for image in images if isinstance(image, np.ndarray))
        return encode(self, images)

    monkeypatch.setattr(captioner.Captioner, "encode", count)
    return calls


def script(name: str) -> None:
    """One view, as the navigation would show it."""
    from captioner.page import main

    main.draw(main.VIEWS[name])


def open_view(name: str, *uploads: bytes) -> AppTest:
    """A view as it opens, or after uploads."""
    page = AppTest.from_function(script, args=(name,), default_timeout=60).run()
    return upload(page, *uploads) if uploads else page


def upload(page: AppTest, *uploads: bytes, name: str = "picture{}.png") -> AppTest:
    files = [(name.format(number), data, "image/png") for number, data in enumerate(uploads)]
    return page.file_uploader[0].set_value(files).run()


def pictures_of(page: AppTest) -> dict[str, pictures.KeptPicture]:
    """The visitor's pictures."""
    taken: dict[str, pictures.KeptPicture] = page.session_state.kept["pictures"]
    return taken


def shown(page: AppTest) -> list[str]:
    """The captions on the page."""
    assert not page.exception
    return [code.value for code in page.code]


def test_the_page_opens_with_its_first_view() -> None:
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert shown(page) == []
    assert not page.error
    assert page.title[0].value == TEXTS["title"]["en"]
    assert any("never sent anywhere" in caption.value for caption in page.caption)


def test_each_picture_has_its_caption_the_newest_first(model: captioner.Captioner, encoded: list[Any]) -> None:
    page = open_view("caption", DOG, CAT)
    assert shown(page) == [model.caption(CAT).text, model.caption(DOG).text]
    assert [alt for image in page.image if (alt := image.proto.imgs[0].alt)] == shown(page)
    assert len(encoded) == 2
    page.run()
    assert len(encoded) == 2
    page.button(key=f"remove-{next(iter(pictures_of(page)))}").click().run()
    assert shown(page) == [model.caption(CAT).text]


def test_what_is_kept_of_a_picture_is_small(model: captioner.Captioner) -> None:
    large = png(Image.effect_noise((3000, 2000), 90).convert("RGB"))
    (kept,) = pictures_of(open_view("caption", large)).values()
    assert load_image(kept.preview).size == (1024, 683)
    assert len(kept.preview) < 500_000  # even of noise
    assert sum(array.nbytes for array in kept.prepared.values()) < 200_000
    # All the same it is captioned as if it were whole.
    assert np.array_equal(model.encode([kept.for_model(model)]), model.encode([large]))


def test_the_preview_is_upright_and_on_white(model: captioner.Captioner) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    (kept,) = pictures_of(open_view("caption", png(Image.new("RGBA", (2000, 500)), exif=exif))).values()
    assert load_image(kept.preview).size == (256, 1024)
    assert load_image(kept.preview).getpixel((100, 100)) == (255, 255, 255)


@pytest.mark.parametrize("view", ["caption", "folder"])
def test_uploads_are_let_go_once_they_are_read(
    view: str, model: captioner.Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    managers, add_file = [], MemoryUploadedFileManager.add_file

    def note(self: MemoryUploadedFileManager, *arguments: Any) -> None:
        managers.append(self)
        add_file(self, *arguments)

    monkeypatch.setattr(MemoryUploadedFileManager, "add_file", note)
    open_view(view, DOG, CAT)
    assert len(managers) >= 2
    assert not any(managers[-1].file_storage.values())


@pytest.mark.usefixtures("model")
def test_the_oldest_pictures_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PICTURES", 2)
    page = open_view("caption", *(png(draw_picture(number)) for number in range(4)))
    assert [picture.name for picture in pictures_of(page).values()] == ["picture2.png", "picture3.png"]
    assert "Only 2 pictures fit here" in page.info[0].value


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"no picture at all", "not a picture", id="text"),
        pytest.param(b"", "empty", id="empty"),
        pytest.param(DOG[: len(DOG) // 2], "damaged picture", id="truncated"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture", id="svg"),
        pytest.param(HEIC, "not a picture" if find_spec("pi_heif") else "is HEIC, which needs", id="heic"),
    ],
)
def test_a_broken_picture_gives_one_sentence(content: bytes, reason: str) -> None:
    page = upload(open_view("caption"), content, name="<b>[x](y)*.jpg")
    assert shown(page) == []
    (error,) = page.error
    assert error.value.startswith(r"\<b\>\[x\]\(y\)\*\.jpg cannot be captioned: ")
    assert reason in error.value
    assert "the picture:" not in error.value
    # The next picture is captioned as if nothing had happened.
    assert len(shown(upload(page, DOG))) == 1
    assert not page.error


def per_word(caption: captioner.Caption) -> float:
    """The mean probability of a word, from the probabilities one by one."""
    ends = () if caption.end_probability is None else (caption.end_probability,)
    chosen = caption.probabilities + ends
    return math.prod(chosen) ** (1 / len(chosen))


def compared(model: captioner.Captioner, beam: dict[str, Any] | None = None, **draws: Any) -> list[str]:
    """What `compare` is to show, from the programming interface, with equal draws once."""
    greedy = model.caption(DOG, captioner.DecodeOptions("greedy"))
    best = model.caption(DOG, captioner.DecodeOptions("beam", **{"num_captions": 3, **(beam or {})}))
    first = model.caption(DOG, captioner.DecodeOptions("sample", **{"num_captions": 5, **draws}))
    drawn = sorted([first, *first.alternatives], key=per_word, reverse=True)
    texts = dict.fromkeys(caption.text for caption in drawn)
    return [text or "(no words)" for text in (greedy.text, best.text, *(c.text for c in best.alternatives), *texts)]


def test_three_ways_of_decoding_stand_side_by_side(model: captioner.Captioner) -> None:
    captions = shown(open_view("compare", DOG))
    assert captions == compared(model)
    assert len(set(captions)) > 4  # of one text throughout, nothing could be told


@pytest.mark.parametrize(
    ("key", "value", "beam", "draws"),
    [
        ("beam-beam_size", 6, {"beam_size": 6}, {}),
        ("beam-beam_size", 1, {"beam_size": 1, "num_captions": 1}, {}),
        ("beam-length_penalty", 2.0, {"length_penalty": 2.0}, {}),
        ("beam-captions", 2, {"num_captions": 2}, {}),
        ("draws", 8, {}, {"num_captions": 8}),
        ("draw-top_k", 2, {}, {"top_k": 2}),
        ("draw-top_p", 0.5, {}, {"top_p": 0.5}),
    ],
)
def test_every_slider_does_what_it_says(
    model: captioner.Captioner,
    encoded: list[Any],
    key: str,
    value: float,
    beam: dict[str, Any],
    draws: dict[str, Any],
) -> None:
    page = open_view("compare", DOG)
    assert shown(page.slider(key=key).set_value(value).run()) == compared(model, beam, **draws) != compared(model)
    assert len(encoded) == 1


def test_the_longest_caption_is_as_long_as_the_slider_says(model: captioner.Captioner) -> None:
    page = open_view("compare", DOG)
    captions = shown(page.slider(key="longest").set_value(3).run())
    assert max(len(caption.split()) for caption in captions) == 3


def test_sliders_are_those_of_the_options(model: captioner.Captioner) -> None:
    page = open_view("compare", DOG)
    (temperature,) = page.select_slider
    stops = [float(stop) for stop in temperature.options]
    spec = SPECS["temperature"]
    assert (stops[0], stops[-1], temperature.value) == (spec.low, spec.high, spec.default)
    assert stops == sorted(stops)
    for key, name in (("beam-beam_size", "beam_size"), ("draw-top_k", "top_k"), ("draw-top_p", "top_p")):
        slider, spec = page.slider(key=key), SPECS[name]
        assert slider.value == spec.default
        assert (spec.low or 0) <= slider.min <= slider.max <= (spec.high or math.inf)
        # Steps from the lowest value meet the highest one: a keyboard reaches it.
        assert (slider.max - slider.min) / slider.step == pytest.approx(round((slider.max - slider.min) / slider.step))


def test_temperature_and_dice_draw_anew(model: captioner.Captioner, encoded: list[Any]) -> None:
    page = open_view("compare", DOG)
    hot = float(page.select_slider[0].options[-10])
    assert shown(page.select_slider[0].set_value(hot).run()) == compared(model, temperature=hot)
    assert shown(page.button(key="dice").click().run()) == compared(model, temperature=hot, seed=1)
    assert page.number_input(key="seed").value == 1
    page.number_input(key="seed").set_value(SEEDS - 1).run()
    page.button(key="dice").click().run()
    assert page.number_input(key="seed").value == 0
    assert len(encoded) == 1


def test_equal_draws_are_shown_once_and_counted(model: captioner.Captioner) -> None:
    cold = SPECS["temperature"].low
    page = open_view("compare", DOG)
    assert shown(page.select_slider[0].set_value(cold).run()) == compared(model, temperature=cold)
    first = model.caption(DOG, captioner.DecodeOptions("sample", temperature=cold, num_captions=5))
    texts = Counter(caption.text for caption in (first, *first.alternatives))
    counts = sorted(f"drawn {times} times" for times in texts.values() if times > 1)
    assert counts  # else there is nothing to count
    assert sorted(caption.value.split(", ")[1] for caption in page.caption if ", drawn" in caption.value) == counts


def test_a_look_inside_shows_every_side(model: captioner.Captioner) -> None:
    page = open_view("inside", DOG)
    assert not page.exception
    explanation = model.explain(DOG)
    weighed, states = (element.value for element in page.get("html") if "<table" in element.value)
    step = explanation.steps[page.session_state.word]
    # The word about which the picture has most to say comes first.
    assert step.heat.max() == max(other.heat.max() for other in explanation.steps)
    assert [candidate.word for candidate in step.candidates if f">{candidate.word}<" in weighed][:1] == [
        step.candidates[0].word
    ]
    assert states.count("<tr>") == 1 + len(explanation.steps)  # h_0 comes first
    assert states.index(TEXTS["start_state"]["en"]) < states.index(f">{explanation.steps[0].word}<")
    assert [header.value for header in page.header] == [
        TEXTS[key]["en"] for key in ("weighed", "where", "tree", "state")
    ]
    assert page.image[-1].proto.imgs[0].alt


def test_a_word_that_is_chosen_is_looked_into(model: captioner.Captioner) -> None:
    page = open_view("inside", DOG)
    page.session_state.word = 0
    page.run()
    assert any(TEXTS["weighed_first"]["en"] in element.value for element in page.get("html"))
    # Fewer words than before: the choice moves to the last.
    page.session_state.word = 10_000
    assert not page.run().exception


def test_greedy_decoding_has_no_beam_to_show(model: captioner.Captioner) -> None:
    page = open_view("inside", DOG)
    page.slider(key="inside-beam").set_value(1).run()
    assert TEXTS["tree"]["en"] not in [header.value for header in page.header]


def test_the_explanation_is_that_of_the_picture_chosen(model: captioner.Captioner) -> None:
    page = open_view("inside", DOG, CAT)
    assert page.session_state.explanation.caption == model.caption(CAT)
    page.session_state.current = next(iter(pictures_of(page)))
    assert page.run().session_state.explanation.caption == model.caption(DOG)


def test_a_sentence_is_scored_beside_the_models_own(model: captioner.Captioner) -> None:
    page = open_view("sentence", DOG)
    before = len(page.get("html"))
    page.text_input(key="sentence").set_value("A red dog!").run()
    assert not page.exception
    assert len(page.get("html")) == before + 1
    yours = next(element.value for element in page.get("html") if ">red<" in element.value)
    scored = model.score(DOG, "A red dog!")
    assert f"{100 * scored.probabilities[0]:.2g}%" in yours or f"{100 * scored.probabilities[0]:.0f}%" in yours
    assert not page.warning
    factor = model.caption(DOG).mean_probability / scored.mean_probability
    assert any(f"{factor:.2g} times as likely as yours" in text.value for text in page.markdown)


def test_a_sentence_of_unknown_words_ranks_last(model: captioner.Captioner) -> None:
    page = open_view("sentence", DOG)
    page.text_input(key="sentence").set_value("A red unicorn sees *xylophones*!").run()
    (warning,) = page.warning
    assert "unicorn, sees, xylophones" in warning.value
    assert "ranks last" in warning.value
    assert not any("likely" in text.value for text in page.markdown if "times" in text.value)


@pytest.mark.parametrize("sentence", ["", "   ", "...!"])
def test_a_sentence_without_words_is_not_scored(model: captioner.Captioner, sentence: str) -> None:
    page = open_view("sentence", DOG)
    page.text_input(key="sentence").set_value(sentence).run()
    assert not page.exception
    assert [header.value for header in page.header] == [TEXTS["its_own"]["en"]]


def listed(page: AppTest) -> list[dict[str, Any]]:
    """What the list of pictures shows."""
    assert not page.exception
    (mounted,) = [element for element in page.get("bidi_component") if "captioner_work" in element.proto.component_name]
    rows: list[dict[str, Any]] = json.loads(mounted.proto.json)["rows"]
    return rows


def test_many_pictures_are_listed(model: captioner.Captioner) -> None:
    page = open_view("folder")
    uploads = [("a.png", DOG, "image/png"), ("b.png", b"broken", "image/png"), ("a.png", CAT, "image/png")]
    page.file_uploader[0].set_value(uploads).run()
    assert not page.exception
    rows = page.session_state.kept["batch"].rows()
    assert [(row["path"], row.get("caption")) for row in rows] == [
        ("a.png", model.caption(DOG).text),
        ("b.png", None),
        ("a (2).png", model.caption(CAT).text),
    ]
    assert "not a picture" in rows[1]["error"]
    assert page.file_uploader[0].value == []  # the files have been let go
    assert [(row["path"], row["state"]) for row in listed(page)][-1] == ("b.png", "failed")
    assert [row["trouble"] for row in listed(page)] == ["", "", rows[1]["error"]]
    assert [button.proto.label for button in page.get("download_button")] == [
        "Download CSV",
        "Download JSONL",
        "Download text files (zip)",
        "Download web page",
    ]


def test_a_second_upload_adds_to_the_first(model: captioner.Captioner) -> None:
    page = upload(open_view("folder", DOG), CAT, DOG)
    captions = [model.caption(picture).text for picture in (DOG, CAT, DOG)]
    rows = page.session_state.kept["batch"].rows()
    assert [row["caption"] for row in rows] == captions
    assert [row["path"] for row in rows] == ["picture0.png", "picture0 (2).png", "picture1.png"]
    page.button[-1].click().run()  # remove all
    assert not page.get("bidi_component")
    assert [row["path"] for row in listed(upload(page, CAT))] == ["picture0.png"]


def test_captioning_goes_on_where_it_was_interrupted(
    model: captioner.Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.page.batch.PART", 2)
    batch, advance = Batch(), Batch.advance

    def interrupted(self: Batch, model: captioner.Captioner) -> bool:
        if not advance(self, model):  # there is nothing to do yet
            return False
        monkeypatch.setattr(Batch, "advance", advance)
        raise StopException  # as when the visitor goes to another view

    monkeypatch.setattr(Batch, "advance", interrupted)
    page = open_view("folder", DOG, CAT, DOG, CAT, DOG)
    batch = page.session_state.kept["batch"]
    assert len(batch.rows()) == 2
    page.run()
    assert [row["caption"] for row in batch.rows()] == [model.caption(each).text for each in (DOG, CAT, DOG, CAT, DOG)]


def test_more_pictures_than_fit_are_named(model: captioner.Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.pictures.archives.MAX_FILES", 3)
    page = upload(open_view("folder", DOG, CAT), DOG, CAT)
    assert len(page.session_state.kept["batch"].rows()) == 3
    assert "At most 3 pictures" in page.info[0].value


def test_any_view_takes_another_picture(model: captioner.Captioner) -> None:
    for view in ("compare", "inside", "sentence"):
        page = open_view(view, DOG)
        upload(page, CAT, name="other{}.png")
        assert not page.exception
        assert page.session_state.current == list(pictures_of(page))[-1]
        assert len(pictures_of(page)) == 2


def test_a_sample_is_captioned(model: captioner.Captioner) -> None:
    page = open_view("caption")
    assert shown(page.button(key="sample-cat").click().run()) == [model.caption(SAMPLES["cat"]).text]
    assert any("cat" in caption.value for caption in page.caption)


def test_about_tells_what_the_model_is(model: captioner.Captioner) -> None:
    text = " ".join(element.value for element in open_view("about").markdown)
    for words in ("non-commercial research and education", f"{len(model.vocabulary)} words", "often wrong"):
        assert words in text


def test_about_tells_of_the_checkpoint_that_is_chosen(
    tiny_checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.safetensors").write_bytes(tiny_checkpoint_file.read_bytes())
    monkeypatch.setattr("captioner.page.models.given", lambda: Namespace(checkpoints=tmp_path))
    page = open_view("about")
    page.session_state.model = "mine"
    text = " ".join(element.value for element in page.run().markdown)
    assert "shufflenet_v2_x0_5" in text
    assert "(LSTM)" in text
    # What a person found in the shipped model's captions, and the terms of its data, say nothing of this one.
    for words in ("MobileNetV2", "GRU", "61", "Flickr8k"):
        assert words not in text


def test_parts_of_an_exported_model_are_not_offered(
    finder_checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "matcher.safetensors").write_bytes(finder_checkpoint_file.read_bytes())
    monkeypatch.setattr("captioner.page.models.given", lambda: Namespace(checkpoints=tmp_path))
    assert "matcher" in models.available()
    (tmp_path / "captioner.json").write_text("{}")
    assert "matcher" not in models.available()


def test_the_language_of_the_captions_is_chosen(
    model: captioner.Captioner, tiny_checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other-net.safetensors"
    save_checkpoint(other, make_checkpoint(tokens="character", end=-3.0))
    files = {"flickr8k": tiny_checkpoint_file, "flickr8k-zh": other}
    monkeypatch.setattr("captioner.page.models.shipped_checkpoints", lambda: files)
    page = open_view("caption", DOG)
    english = shown(page)
    page.session_state.model = "flickr8k-zh"
    assert shown(page.run()) == [captioner.load(other).caption(DOG).text] != english
    inside = open_view("inside", DOG)
    inside.session_state.model = "flickr8k-zh"
    inside.run()
    inside.session_state.word = 2
    inside.run()
    before = "".join(inside.session_state.explanation.caption.tokens[:2])  # characters: no spaces between them
    assert any(f"“{before}”" in element.value for element in inside.get("html"))


@pytest.mark.usefixtures("model")
def test_the_page_speaks_chinese() -> None:
    page = open_view("caption")
    page.session_state.language = "zh"
    assert page.run().title[0].value == TEXTS["title"]["zh"]


def test_a_missing_checkpoint_gives_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.page.models.shipped_checkpoints", dict)
    monkeypatch.setattr("captioner.network.header.shipped_checkpoints", dict)
    st.cache_resource.clear()
    page = open_view("caption")
    (error,) = page.error
    assert error.value.startswith("The model cannot be loaded: ")
    assert not page.exception
    st.cache_resource.clear()


@pytest.mark.usefixtures("model")
def test_visitors_share_one_model_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    st.cache_resource.clear()
    loads: list[None] = []
    load = captioner.load
    monkeypatch.setattr(captioner, "load", lambda path: loads.append(None) or load(path))
    first, second = open_view("caption", DOG), open_view("caption", CAT)
    assert len(loads) == 1
    assert not set(pictures_of(first)) & set(pictures_of(second))


def test_configuration_keeps_the_page_private() -> None:
    tomllib = pytest.importorskip("tomllib")
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    server = config["server"]
    assert server["address"] == "localhost"
    assert "enableCORS" not in server  # another site may not connect: Streamlit's default
    assert server["maxUploadSize"] == pictures.MAX_MEGABYTES
    assert config["browser"]["gatherUsageStats"] is False
    assert config["client"]["showErrorDetails"] == "none"


def test_words_that_are_wanted_and_unwanted(model: captioner.Captioner) -> None:
    before = shown(open_view("compare", DOG))
    unwanted = max(before[0].lower().split(), key=len)
    page = open_view("compare", DOG)
    captions = shown(page.multiselect(key="avoid").set_value([unwanted]).run())
    assert captions == [text for text in captions if unwanted not in text.lower().split()] != before
    page = open_view("compare", DOG)
    wanted = next(word for word in model.vocabulary.words[4:] if word not in " ".join(before).lower().split())
    captions = shown(page.multiselect(key="require").set_value([wanted]).run())
    assert captions[0] == before[0]
    assert all(wanted in text.lower().split() for text in captions[1:4])


@pytest.mark.parametrize(
    ("bars", "said"),
    [((0.0, 0.0), "Sure"), ((1.0, 0.0), "Not sure"), ((0.0, 1.0), "Not the kind of picture I know")],
)
def test_the_page_says_how_sure_a_caption_is(
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bars: tuple[float, float],
    said: str,
) -> None:
    trust = Trust((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), (1.0, 0.0), *bars)
    save_checkpoint(tmp_path / "trusted.safetensors", dataclasses.replace(tiny_checkpoint, trust=trust))
    monkeypatch.setattr(
        "captioner.page.models.shipped_checkpoints", lambda: {"flickr8k": tmp_path / "trusted.safetensors"}
    )
    st.cache_resource.clear()
    page = open_view("caption", DOG)
    [caption] = [element for element in page.caption if element.value == said]
    assert "50.0%" in caption.help or "50%" in caption.help
    st.cache_resource.clear()
