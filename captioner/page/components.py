"""Elements that Streamlit lacks: words as buttons, drawings as SVG, and a list of pictures to correct captions in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from captioner.page.drawings import percent


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


_mount_words = st.components.v2.component(
    "captioner_words", html='<div role="group"></div>', css=_file("words.css"), js=_file("words.js")
)
_mount_work = st.components.v2.component(
    "captioner_work", html='<div class="work"></div>', css=_file("work.css"), js=_file("work.js")
)
# Previews go their own way: Streamlit sends what has not changed only once, and captions change often.
_mount_previews = st.components.v2.component(
    "captioner_previews",
    js="""export default function ({ data }) {
      globalThis.captionerPreviews = data
      document.dispatchEvent(new Event("captioner-previews"))
    }""",
)
# An SVG of `drawings`, in the colours of the theme. `st.html` drops SVG; the templates of drawings escape every text.
drawing = st.components.v2.component(
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


def correct(
    data: Mapping[str, Any], previews: Mapping[str, str], receive: Callable[[str, list[dict[str, Any]]], None]
) -> None:
    """Show pictures whose captions a person may correct. `receive` takes what they did: see `work.Work.receive`."""

    def take() -> None:
        said = st.session_state["work"]["said"]
        if said["server"] == data["server"]:  # a browser tells a new server what it had told the one before
            receive(said["tab"], said["messages"])

    _mount_previews(key="previews", data=dict(previews))
    _mount_work(key="work", data=dict(data), on_said_change=take)
