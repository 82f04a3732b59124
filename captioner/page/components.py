"""Elements that Streamlit lacks: words as buttons coloured by probability, and drawings as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from captioner.page.drawings import percent

_mount_words = st.components.v2.component(
    "captioner_words",
    html='<div role="group"></div>',
    css=Path(__file__).with_name("words.css").read_text(encoding="utf-8"),
    js=Path(__file__).with_name("words.js").read_text(encoding="utf-8"),
)
# `st.html` drops SVG. Drawings come from templates that escape every text.
_mount_drawing = st.components.v2.component(
    "captioner_drawing",
    html="<div></div>",
    js="export default function ({ data, parentElement }) { parentElement.querySelector('div').innerHTML = data }",
)


def choose_word(words: Sequence[str], probabilities: Sequence[float], chosen: int, label: str, key: str) -> None:
    """Show the words. The place of the one that is clicked is stored in the session state under `key`."""

    def keep() -> None:
        st.session_state[key] = st.session_state[f"{key}-buttons"]["chosen"]

    shown = [[word, percent(p), round(p, 4)] for word, p in zip(words, probabilities, strict=True)]
    data = {"words": shown, "chosen": chosen, "label": label}
    _mount_words(key=f"{key}-buttons", data=data, on_chosen_change=keep)


def drawing(html: str, key: str) -> None:
    """Show an SVG of `drawings`, in the colours of the theme."""
    _mount_drawing(key=key, data=html)
