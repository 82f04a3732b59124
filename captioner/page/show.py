"""Captions on the page."""

from __future__ import annotations

import time

import streamlit as st

from captioner import Caption, Captioner, DecodeOptions
from captioner.inference.captioner import Features
from captioner.inference.trust import NOT_SURE, UNFAMILIAR
from captioner.page.drawings import percent
from captioner.page.pictures import KeptPicture
from captioner.page.texts import say

DOUBTS = {NOT_SURE: "not_sure", UNFAMILIAR: "unfamiliar"}  # what speaks against a caption, by the names of texts
STYLE = """<style>
[class*="st-key-answer"] code { font-size: 1.6rem; line-height: 1.35; font-weight: 500 }
[data-testid="stCode"] > div, [data-testid="stCode"] > div > div { opacity: 1 !important; transform: none !important }
.stMainBlockContainer { padding-top: 1.2rem }
.stAppHeader { background: none; pointer-events: none }
[class*="st-key-seen"] img { max-height: 70vh; width: auto; max-width: 100% }
.st-key-samples img { aspect-ratio: 1; object-fit: cover }
@media (max-width: 640px) {
  .stMainBlockContainer h1 { font-size: 1.4rem; padding: 0 }
  [class*="st-key-answer"] code { font-size: 1.25rem }
  [class*="st-key-seen"] img { max-height: 38vh }
}
</style>"""


def sure(caption: Caption, times: int = 1) -> str:
    """How sure the model is of a caption, and how many times it was drawn."""
    if caption.confidence is None:
        text = say("sure", percent=percent(caption.mean_probability))
    else:
        text = say(DOUBTS.get(caption.unsure, "is_sure"))
    return text if times == 1 else f"{text}, {say('times', count=times)}"


def caption(caption: Caption, times: int = 1) -> None:
    """A caption to copy, and below it how likely the model found its words."""
    with st.container(gap="xxsmall"):
        st.code(caption.text or say("no_words"), language=None, wrap_lines=True)
        why = say("sure_help")
        if caption.confidence is not None and caption.familiar is not None:
            numbers = {"confidence": percent(caption.confidence), "familiar": percent(caption.familiar)}
            why = say("confidence_help", **numbers)
        st.caption(sure(caption, times), help=why)


def picture(kept: KeptPicture, alt: str) -> None:
    """A picture that leaves room on the screen for what is said about it."""
    with st.container(key=f"seen-{kept.digest[:16]}"):
        st.image(kept.preview, width="stretch", alt=alt)


def decoded(model: Captioner, feature: Features, options: DecodeOptions | None = None) -> tuple[Caption, float]:
    """The caption of a feature (1, F), and how many milliseconds decoding took."""
    start = time.perf_counter()
    [best] = model.caption_features(feature, options)
    return best, 1000 * (time.perf_counter() - start)
