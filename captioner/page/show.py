"""Captions on the page."""

from __future__ import annotations

import time

import streamlit as st
from torch import Tensor

from captioner import Caption, Captioner, DecodeOptions
from captioner.page.drawings import percent
from captioner.page.texts import say

STYLE = """<style>
[class*="st-key-answer"] code { font-size: 1.6rem; line-height: 1.35; font-weight: 500 }
[data-testid="stCode"] > div, [data-testid="stCode"] > div > div { opacity: 1 !important; transform: none !important }
.stMainBlockContainer { padding-top: 4.5rem }
</style>"""


def sure(caption: Caption, times: int = 1) -> str:
    """How likely the model found a caption, and how many times it was drawn."""
    text = say("sure", percent=percent(caption.mean_probability))
    return text if times == 1 else f"{text}, {say('times', count=times)}"


def caption(caption: Caption, times: int = 1) -> None:
    """A caption to copy, and below it how likely the model found its words."""
    with st.container(gap="xxsmall"):
        st.code(caption.text or say("no_words"), language=None, wrap_lines=True)
        st.caption(sure(caption, times), help=say("sure_help"))


def decoded(model: Captioner, feature: Tensor, options: DecodeOptions | None = None) -> tuple[Caption, float]:
    """The caption of a feature (1, F), and how many milliseconds decoding took."""
    start = time.perf_counter()
    [best] = model.caption_features(feature, options)
    return best, 1000 * (time.perf_counter() - start)
