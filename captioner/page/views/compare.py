"""Greedy, beam and sampled decoding of the same picture, side by side."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import streamlit as st

import captioner
from captioner.inference.captioner import Features
from captioner.inference.rules import MOST_REQUIRED
from captioner.languages import language_of
from captioner.options import OptionSpec, option_specs
from captioner.page import pictures, show
from captioner.page.texts import say
from captioner.vocab import SPECIAL_TOKENS

SPECS = {spec.name: spec for spec in option_specs(captioner.DecodeOptions)}
HIGHEST = {"beam_size": 12, "num_captions": 12, "max_length": 40, "top_k": 100, "length_penalty": 2.0}  # of a slider
SEEDS = 2**31


def view(name: str, model: captioner.Captioner) -> None:
    """Three columns of captions, each with its own sliders."""
    if not (picture := pictures.current(model)):
        return
    feature = picture.encoded(name, model)
    left, right = st.columns([1, 3], gap="medium", vertical_alignment="bottom")
    with left:
        show.picture(picture, alt=show.decoded(model, feature)[0].text)
    right.write(say("compare_intro"))
    _columns(model, feature, picture.encode_ms)


@st.fragment  # a slider then reruns this part only
def _columns(model: captioner.Captioner, feature: Features, encode_ms: float) -> None:
    max_length, wording = slider("max_length", key="longest"), _wording(model)
    required = wording.pop("require")
    greedy, beam, drawn = st.columns(3, gap="medium")
    with greedy:
        _head("greedy", "greedy_is")
        spent = _captions(model, feature, "greedy", max_length=max_length, **wording)
    with beam:
        _head("beam", "beam_is")
        values = {option: slider(option, key=f"beam-{option}") for option in ("beam_size", "length_penalty")}
        values["num_captions"] = min(slider("num_captions", key="beam-captions", start=3), values["beam_size"])
        spent += _captions(model, feature, "beam", max_length=max_length, require=required, **wording, **values)
    with drawn:
        _head("sampled", "sample_is")
        values = {option: slider(option, key=f"draw-{option}") for option in ("temperature", "top_k", "top_p")}
        values["num_captions"] = slider("num_captions", key="draws", start=5)
        spent += _captions(model, feature, "sample", max_length=max_length, seed=_seed(), **wording, **values)
    st.caption(say("cost", encode=encode_ms, decode=spent))


def _wording(model: captioner.Captioner) -> dict[str, Any]:
    """Ask for words that are wanted and unwanted, and for neutral words for people, where the language has them."""
    words, (unwanted, wanted, neutral) = sorted(model.vocabulary.words[len(SPECIAL_TOKENS) :]), st.columns(3)
    choose = partial(st.multiselect, options=words, placeholder=say("choose_words"), persist_state="session")
    with unwanted:
        avoid = choose(say("avoid"), key="avoid", help=say("help_avoid"))
    with wanted:
        require = choose(say("require"), key="require", max_selections=MOST_REQUIRED, help=say("help_require"))
    given = {"avoid": ",".join(avoid), "require": ",".join(require)}
    if language_of(words).neutral:
        with neutral:
            on = st.toggle(say("neutral"), key="neutral", help=say("help_neutral"), persist_state="session")
        given["people"] = "neutral" if on else "written"
    return given


def _head(title: str, what: str) -> None:
    st.header(say(title), anchor=False)
    st.caption(say(what))


def _captions(model: captioner.Captioner, feature: Features, strategy: str, **values: Any) -> float:
    """Show the captions of a strategy, equal draws once and the likeliest first. Returns the milliseconds it took."""
    best, milliseconds = show.decoded(model, feature, captioner.DecodeOptions(strategy, **values))
    captions = [best, *best.alternatives]
    times = Counter(caption.text for caption in captions if strategy == "sample")
    if times:
        captions.sort(key=lambda caption: -caption.mean_probability)
        captions = list({caption.text: caption for caption in captions}.values())
    for caption in captions:
        show.caption(caption, times.get(caption.text, 1))
    return milliseconds


def slider(name: str, key: str, start: float | None = None) -> Any:
    """A slider for one of DecodeOptions. Its range is what the option allows, cut to what is useful on a page."""
    spec, help = SPECS[name], say(f"help_{name}")
    if name == "temperature":
        return st.select_slider(say(name), _stops(spec), spec.default, key=key, help=help, persist_state="session")
    high = min(spec.high or math.inf, HIGHEST.get(name, math.inf))
    step = spec.kind(1) if spec.kind is int else 0.05
    low = math.ceil((spec.low or 0) / step) * step  # the steps then end at the highest value
    low, high, start = (spec.kind(value) for value in (low, high, spec.default if start is None else start))
    return st.slider(say(name), low, high, start, step, key=key, help=help, persist_state="session")


def _stops(spec: OptionSpec) -> list[float]:
    """Values for a slider from low to high, 20 for each factor of ten, the default among them."""
    low, high = (round(20 * math.log10(end or 1)) for end in (spec.low, spec.high))
    return sorted({spec.default, *(float(f"{10 ** (i / 20):.2g}") for i in range(low, high + 1))})


def _seed() -> int:
    st.session_state.setdefault("seed", SPECS["seed"].default)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        seed = st.number_input(
            say("seed"), 0, SEEDS - 1, key="seed", help=say("help_seed"), width=150, persist_state="session"
        )
        dice = partial(st.session_state.update, seed=(seed + 1) % SEEDS)
        st.button("", key="dice", icon=":material/casino:", help=say("dice"), on_click=dice)
    return int(seed)
