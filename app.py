"""The web page: captions for an uploaded picture. Start it with `make app` or `streamlit run app.py`."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import TYPE_CHECKING

import streamlit as st

import captioner
from captioner.errors import UserError
from captioner.images import ImageError, load_image
from captioner.options import OptionSpec, option_specs
from captioner.shipped import LANGUAGES, shipped_checkpoints

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SPECS = {spec.name: spec for spec in option_specs(captioner.DecodeOptions)}
SEEDS = 2**53  # those that a browser tells apart
PREVIEW = (1024, 1024)

LIKELIHOOD = """
The percentage is the probability that the model gave to each next word, averaged over the caption (as a geometric
mean): at 100% it would have been certain of every word, at 10% each was one in ten. The most likely comes first.
"""
ABOUT = """
**About.** captioner writes a sentence for a picture: a small convolutional network looks at it, a recurrent one writes,
and both are sometimes wrong. Everything runs on this machine, and uploads are not kept. The shipped model was trained
on Flickr8k, whose terms allow non-commercial research and education only.
"""


@st.cache_resource(show_spinner="Loading the model…")
def load_model(name: str | None) -> captioner.Captioner:
    """A shipped model, once a process."""
    return captioner.load(name)


def choose_model() -> str | None:
    """The name of the shipped model that writes in the language chosen; None for the default where no other came."""
    names = list(shipped_checkpoints())
    if len(names) < 2:
        return None
    return st.radio("Captions in", names, horizontal=True, format_func=lambda name: LANGUAGES.get(name, name))


def look(model: captioner.Captioner, name: str | None, data: bytes) -> tuple[Tensor, Image.Image]:
    """Features and preview of the upload, made once a model. Raises ImageError when it cannot be read."""
    digest = name, hashlib.sha256(data).digest()
    if st.session_state.get("digest") != digest:
        image = load_image(data)
        features = model.encode([image])
        image.thumbnail(PREVIEW)
        st.session_state.update(features=features, preview=image, digest=digest)
    return st.session_state.features, st.session_state.preview


def show(caption: captioner.Caption, times: int = 1) -> None:
    """A caption to copy, and below it how likely the model found its words."""
    digits = 0 if caption.mean_probability >= 0.1 else 1
    with st.container(gap="xxsmall"):
        st.code(caption.text or "(no words)", language=None, wrap_lines=True)
        st.caption(f"{caption.mean_probability:.{digits}%} a word" + f", drawn {times} times" * (times > 1))


def stops(spec: OptionSpec) -> list[float]:
    """Values from low to high for a slider, 20 for each factor of ten; the default is one of them."""
    low, high = (round(20 * math.log10(end or 1)) for end in (spec.low, spec.high))
    return sorted({spec.default, *(float(f"{10 ** (i / 20):.2g}") for i in range(low, high + 1))})


@st.fragment  # so that the slider re-runs this part only
def draws(model: captioner.Captioner, features: Tensor) -> None:
    """Captions drawn at random, and what steers them."""
    st.subheader("Drawn at random", anchor=False)
    spec = SPECS["temperature"]
    temperature = st.select_slider("Temperature", stops(spec), spec.default, help=spec.help)
    st.session_state.setdefault("seed", SPECS["seed"].default)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        count = st.number_input("Captions", 1, 12, 5, width=130)  # what fits a page; DecodeOptions allows more
        seed = st.number_input("Seed", 0, SEEDS - 1, key="seed", help=SPECS["seed"].help, width=130)
        st.button("Draw again", on_click=lambda: st.session_state.update(seed=(seed + 1) % SEEDS))
    options = captioner.DecodeOptions("sample", temperature=temperature, num_captions=count, seed=seed)
    best = model.caption_features(features, options)[0]
    captions = sorted([best, *best.alternatives], key=lambda caption: -caption.mean_probability)
    times = Counter(caption.text for caption in captions)
    for caption in {caption.text: caption for caption in captions}.values():
        show(caption, times[caption.text])


st.set_page_config(page_title="captioner", page_icon="🖼️")
st.title("A caption for your picture", anchor=False)
upload = st.file_uploader("Choose a picture", type="image")
try:
    name = choose_model()
    model = load_model(name)
    if upload:
        features, image = look(model, name, upload.getvalue())
        best = model.caption_features(features)[0]
        left, right = st.columns(2, gap="medium")
        left.image(image, width="stretch", alt=best.text)
        with right:
            st.subheader("Best caption", anchor=False)
            show(best)
            st.subheader("Greedy caption", anchor=False, help=SPECS["strategy"].help)
            show(model.caption_features(features, captioner.DecodeOptions("greedy"))[0])
        draws(model, features)
        st.caption(LIKELIHOOD)
    else:
        st.session_state.update(features=None, preview=None, digest=None)  # a removed picture is forgotten
except ImageError as error:
    st.error(f"This file cannot be captioned: {str(error).removeprefix('the picture: ')}.")
except UserError as error:
    st.error(f"The model cannot be loaded: {error}.")
st.divider()
st.caption(ABOUT)
