"""Greedy, beam and sampled decoding of the same picture, side by side."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import streamlit as st
from torch import Tensor

import captioner
from captioner.options import OptionSpec, option_specs
from captioner.page import pictures, show
from captioner.page.texts import say

SPECS = {spec.name: spec for spec in option_specs(captioner.DecodeOptions)}
HIGHEST = {"beam_size": 12, "num_captions": 12, "max_length": 40, "top_k": 100, "length_penalty": 2.0}  # of a slider
SEEDS = 2**31


def view(name: str, model: captioner.Captioner) -> None:
    """Three columns of captions, each with its own sliders."""
    picture = pictures.current(model)
    if picture is None:
        return
    feature = picture.encoded(name, model)
    left, right = st.columns([1, 3], gap="medium", vertical_alignment="bottom")
    left.image(picture.preview, width="stretch", alt=show.decoded(model, feature)[0].text)
    with right:
        st.write(say("compare_intro"))
    _columns(model, feature, picture.encode_ms)


@st.fragment  # a slider then reruns this part only
def _columns(model: captioner.Captioner, feature: Tensor, encode_ms: float) -> None:
    max_length = slider("max_length", key="longest")
    spent = 0.0
    greedy, beam, drawn = st.columns(3, gap="medium")
    with greedy:
        _head("greedy", "greedy_is")
        best, milliseconds = show.decoded(model, feature, show.options_of("greedy", max_length=max_length))
        show.caption(best)
        spent += milliseconds
    with beam:
        _head("beam", "beam_is")
        values = {option: slider(option, key=f"beam-{option}") for option in ("beam_size", "length_penalty")}
        values["num_captions"] = slider("num_captions", key="beam-captions", start=3)
        best, milliseconds = show.decoded(model, feature, show.options_of("beam", max_length=max_length, **values))
        for caption in (best, *best.alternatives):
            show.caption(caption)
        spent += milliseconds
    with drawn:
        _head("sampled", "sample_is")
        values = {"temperature": _temperature()}
        values |= {option: slider(option, key=f"draw-{option}") for option in ("top_k", "top_p")}
        values["num_captions"] = slider("num_captions", key="draws", start=5)
        values["seed"] = _seed()
        best, milliseconds = show.decoded(model, feature, show.options_of("sample", max_length=max_length, **values))
        captions = sorted([best, *best.alternatives], key=lambda caption: -caption.mean_probability)
        times = Counter(caption.text for caption in captions)
        for caption in {caption.text: caption for caption in captions}.values():
            show.caption(caption, times[caption.text])
        spent += milliseconds
    st.caption(say("cost", encode=encode_ms, decode=spent))


def _head(title: str, what: str) -> None:
    st.header(say(title), anchor=False)
    st.caption(say(what))


def slider(name: str, key: str, start: float | None = None) -> Any:
    """A slider for one of DecodeOptions. Its range is what the option allows, cut to what is useful on a page."""
    spec = SPECS[name]
    high = min(spec.high or math.inf, HIGHEST.get(name, math.inf))
    step = spec.kind(1) if spec.kind is int else 0.05
    low = math.ceil((spec.low or 0) / step) * step  # the steps then end at the highest value
    low, high, start = (spec.kind(value) for value in (low, high, spec.default if start is None else start))
    return st.slider(say(name), low, high, start, step, key=key, help=say(f"help_{name}"), persist_state="session")


def stops(spec: OptionSpec) -> list[float]:
    """Values for a slider from low to high, 20 for each factor of ten, the default among them."""
    low, high = (round(20 * math.log10(end or 1)) for end in (spec.low, spec.high))
    return sorted({spec.default, *(float(f"{10 ** (i / 20):.2g}") for i in range(low, high + 1))})


def _temperature() -> float:
    spec = SPECS["temperature"]
    chosen: float = st.select_slider(
        say("temperature"), stops(spec), spec.default, key="temperature", help=say("help_temperature")
    )
    return chosen


def _seed() -> int:
    st.session_state.setdefault("seed", SPECS["seed"].default)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        seed = st.number_input(say("seed"), 0, SEEDS - 1, key="seed", help=say("help_seed"), width=150)
        st.button(
            "",
            icon=":material/casino:",
            help=say("dice"),
            key="dice",
            on_click=lambda: st.session_state.update(seed=(seed + 1) % SEEDS),
        )
    return int(seed)
