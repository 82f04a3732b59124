"""The web page, through Streamlit's own test runner: no browser, no server."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from conftest import draw_picture, make_checkpoint
from PIL import Image
from streamlit.testing.v1 import AppTest

import captioner
from captioner.checkpoint import save_checkpoint
from captioner.options import option_specs
from captioner.shipped import find_checkpoint

ROOT = Path(__file__).parent.parent
SPECS = {spec.name: spec for spec in option_specs(captioner.DecodeOptions)}


def png(image: Image.Image, **options: Any) -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


DOG, CAT = png(draw_picture(1)), png(draw_picture(2))


@pytest.fixture(scope="module")
def model(tiny_checkpoint_file: Path) -> Iterator[captioner.Captioner]:
    """The tiny model, which the page then takes for the shipped one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captioner.inference.find_checkpoint", lambda name=None: tiny_checkpoint_file)
        st.cache_resource.clear()
        yield captioner.load(tiny_checkpoint_file)
    st.cache_resource.clear()


@pytest.fixture
def encoded(model: captioner.Captioner, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one for each time that the page encodes a picture."""
    calls: list[Any] = []
    encode = captioner.Captioner.encode

    def count(self: captioner.Captioner, images: Any) -> Any:
        calls.append(images)
        return encode(self, images)

    monkeypatch.setattr(captioner.Captioner, "encode", count)
    return calls


def open_page(picture: bytes | None = None) -> AppTest:
    """The page as it opens, or after an upload."""
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    return page if picture is None else upload(page, picture)


def upload(page: AppTest, picture: bytes, name: str = "picture.png") -> AppTest:
    return page.file_uploader[0].set_value((name, picture, "image/png")).run()


def shown(page: AppTest) -> list[str]:
    """The captions on the page: the best, the greedy one, those drawn."""
    assert not page.exception
    return [code.value for code in page.code]


def per_word(caption: captioner.Caption) -> float:
    """The mean probability of a word, from the probabilities one by one."""
    ends = () if caption.end_probability is None else (caption.end_probability,)
    chosen = caption.probabilities + ends
    return math.prod(chosen) ** (1 / len(chosen))


def drawn(model: captioner.Captioner, picture: bytes, **options: Any) -> list[captioner.Caption]:
    """What the page is to draw, from the programming interface, with equal captions."""
    best = model.caption(picture, captioner.DecodeOptions("sample", **{"num_captions": 5, **options}))
    return sorted([best, *best.alternatives], key=per_word, reverse=True)


def expected(model: captioner.Captioner, picture: bytes, **options: Any) -> list[str]:
    """What the page is to show, from the programming interface."""
    greedy = model.caption(picture, captioner.DecodeOptions("greedy"))
    draws = dict.fromkeys(caption.text for caption in drawn(model, picture, **options))
    return [text or "(no words)" for text in (model.caption(picture).text, greedy.text, *draws)]


@pytest.mark.usefixtures("model")
def test_page_opens() -> None:
    page = open_page()
    assert shown(page) == []
    assert not page.error
    assert len(page.file_uploader) == 1
    about = page.caption[-1].value.replace("\n", " ")
    for words in ("runs on this machine", "not kept", "Flickr8k", "non-commercial research and education only"):
        assert words in about


def test_captions_are_those_of_the_captioner(model: captioner.Captioner) -> None:
    captions = shown(open_page(DOG))
    assert captions == expected(model, DOG)
    assert len(set(captions)) > 4  # of one text throughout, nothing could be told


def test_captions_come_with_their_likelihood(model: captioner.Captioner) -> None:
    page = open_page(DOG)
    captions = [model.caption(DOG), model.caption(DOG, captioner.DecodeOptions("greedy")), *drawn(model, DOG)]
    assert len({caption.text for caption in captions[2:]}) == 5  # each stands on the page
    notes = [element.value for element in page.caption if element.value.endswith("% a word")]
    assert [float(note.removesuffix("% a word")) for note in notes] == pytest.approx(
        [100 * per_word(caption) for caption in captions], abs=0.51
    )
    assert any("geometric" in element.value for element in page.caption)


def test_picture_is_described_to_those_who_do_not_see_it(model: captioner.Captioner) -> None:
    (image,) = open_page(DOG).image
    assert image.proto.imgs[0].alt == model.caption(DOG).text


def test_temperature_draws_anew_and_encodes_nothing(model: captioner.Captioner, encoded: list[Any]) -> None:
    page = open_page(DOG)
    before = shown(page)
    hot = float(page.select_slider[0].options[-10])
    after = shown(page.select_slider[0].set_value(hot).run())
    assert len(encoded) == 1
    assert after == expected(model, DOG, temperature=hot)
    assert after[:2] == before[:2]
    assert after[2:] != before[2:]


@pytest.mark.usefixtures("model")
def test_temperature_is_that_of_the_options() -> None:
    (slider,) = open_page(DOG).select_slider
    spec = SPECS["temperature"]
    stops = [float(stop) for stop in slider.options]
    assert (stops[0], stops[-1], slider.value, slider.help) == (spec.low, spec.high, spec.default, spec.help)
    assert stops == sorted(stops)
    assert all(captioner.DecodeOptions("sample", temperature=stop) for stop in stops)


def test_draw_again_takes_the_next_seed(model: captioner.Captioner, encoded: list[Any]) -> None:
    page = open_page(DOG)
    before = shown(page)
    after = shown(page.button[0].click().run())
    assert page.number_input(key="seed").value == SPECS["seed"].default + 1
    assert shown(page.number_input(key="seed").set_value(SPECS["seed"].default).run()) == before
    assert len(encoded) == 1
    assert after == expected(model, DOG, seed=SPECS["seed"].default + 1) != before


@pytest.mark.usefixtures("model")
def test_largest_seed_is_followed_by_zero() -> None:
    page = open_page(DOG)
    first = shown(page)
    last = int(page.number_input(key="seed").max)
    assert shown(page.number_input(key="seed").set_value(last).run()) != first
    assert shown(page.button[0].click().run()) == first


def test_number_of_captions(model: captioner.Captioner) -> None:
    captions = shown(open_page(DOG).number_input[0].set_value(8).run())
    assert captions == expected(model, DOG, num_captions=8)
    assert len(captions) > 7


def test_equal_draws_are_shown_once_and_counted(model: captioner.Captioner) -> None:
    cold = SPECS["temperature"].low
    page = open_page(DOG)
    captions = shown(page.select_slider[0].set_value(cold).run())
    assert captions == expected(model, DOG, temperature=cold)
    texts = [caption.text for caption in drawn(model, DOG, temperature=cold)]
    counts = [f"drawn {texts.count(text)} times" for text in dict.fromkeys(texts) if texts.count(text) > 1]
    assert counts  # else there is nothing to count
    assert [element.value.split(", ")[1] for element in page.caption if "a word, " in element.value] == counts


def test_every_picture_is_encoded_once(model: captioner.Captioner, encoded: list[Any]) -> None:
    page = open_page(DOG)
    cat, _, dog = shown(upload(page, CAT)), page.run(), shown(upload(page, DOG))
    assert len(encoded) == 3
    assert cat == expected(model, CAT) != dog
    assert dog == expected(model, DOG)


@pytest.mark.usefixtures("model")
def test_removed_picture_is_forgotten() -> None:
    page = open_page(DOG)
    assert page.session_state["features"] is not None
    assert shown(page.file_uploader[0].set_value(None).run()) == []
    for name in ("features", "preview", "digest"):
        assert page.session_state[name] is None


@pytest.mark.usefixtures("model")
def test_preview_is_upright_small_and_on_white() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    page = open_page(png(Image.new("RGBA", (2000, 500)), exif=exif))
    assert page.session_state["preview"].size == (256, 1024)
    assert page.session_state["preview"].getpixel((100, 100)) == (255, 255, 255)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"no picture at all", "not a picture", id="text"),
        pytest.param(b"", "empty", id="empty"),
        pytest.param(DOG[: len(DOG) // 2], "damaged picture", id="truncated"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture", id="svg"),
    ],
)
def test_broken_picture_gives_one_sentence(content: bytes, reason: str) -> None:
    page = open_page(DOG)
    assert shown(upload(page, content, "broken.jpg")) == []
    (error,) = page.error
    assert error.value.startswith("This file cannot be captioned: ")
    assert reason in error.value
    assert "the picture:" not in error.value
    assert len(error.value.splitlines()) == 1
    # The next picture is captioned as if nothing had happened.
    assert len(shown(upload(page, DOG))) == 7
    assert not page.error


def test_the_language_chooses_the_model(
    model: captioner.Captioner, tmp_path: Path, encoded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other-net.safetensors"
    save_checkpoint(other, make_checkpoint(tokens="character", end=-3.0))
    files = {"flickr8k": find_checkpoint(), "flickr8k-zh": other}
    monkeypatch.setattr("captioner.shipped.shipped_checkpoints", lambda: files)
    monkeypatch.setattr("captioner.inference.find_checkpoint", files.get)
    st.cache_resource.clear()
    page = open_page(DOG)
    assert page.radio[0].options == ["English", "中文"]
    english = shown(page)
    page.radio[0].set_value("flickr8k-zh").run()
    assert shown(page)[0] == captioner.load("flickr8k-zh").caption(DOG).text != english[0]
    assert len(encoded) == 3  # by each model of the page, and here
    st.cache_resource.clear()


def test_missing_checkpoint_gives_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.inference.find_checkpoint", find_checkpoint)
    monkeypatch.setattr("captioner.shipped.shipped_checkpoints", dict)
    st.cache_resource.clear()
    page = open_page()
    assert shown(page) == []
    (error,) = page.error
    assert error.value.startswith("The model cannot be loaded: ")
    assert "the shipped checkpoint is not there" in error.value
    assert "Flickr8k" in page.caption[-1].value  # the rest of the page is there


@pytest.mark.usefixtures("model")
def test_visitors_share_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    st.cache_resource.clear()
    loads: list[None] = []
    load = captioner.load
    monkeypatch.setattr("captioner.inference.load", lambda name: loads.append(None) or load(name))
    assert shown(open_page(DOG)) == shown(open_page(DOG))
    assert len(loads) == 1


def test_configuration_keeps_the_page_private() -> None:
    tomllib = pytest.importorskip("tomllib")
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    server = config["server"]
    assert (server["address"], server["enableXsrfProtection"], server["maxUploadSize"]) == ("localhost", True, 50)
    assert config["browser"]["gatherUsageStats"] is False
    assert config["client"]["showErrorDetails"] == "none"
