"""Elements that Streamlit lacks: words as buttons coloured by probability, and drawings as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from captioner.page.drawings import percent

_WORDS_HTML = '<div role="group"></div>'

_WORDS_CSS = """
div { display: flex; flex-wrap: wrap; gap: .35rem }
button {
  font: inherit; color: var(--st-text-color); cursor: pointer; padding: .3rem .6rem; text-align: center;
  border: 2px solid transparent; border-radius: var(--st-base-radius);
  --share: calc(var(--probability) * 65%);
  background: color-mix(in srgb, var(--st-primary-color) var(--share), var(--st-secondary-background-color));
}
button span { display: block; font-size: 1.15rem }
button small { font-size: .8rem }
button:hover { border-color: color-mix(in srgb, var(--st-text-color) 40%, transparent) }
button[aria-pressed=true] { border-color: var(--st-text-color) }
button:focus-visible { outline: 3px solid var(--st-primary-color); outline-offset: 2px }
"""

# Words go in as text, never as HTML. Each run builds the row again, so the focus has to be restored.
_WORDS_JS = """
export default function ({ data, parentElement, setStateValue }) {
  const row = parentElement.querySelector("[role=group]");
  const focused = [...row.children].indexOf(parentElement.activeElement);
  row.setAttribute("aria-label", data.label);
  row.replaceChildren(...data.words.map(([word, share, probability], place) => {
    const button = document.createElement("button");
    const [text, number] = [document.createElement("span"), document.createElement("small")];
    text.textContent = word;
    number.textContent = share;
    button.append(text, number);
    button.type = "button";
    button.style.setProperty("--probability", probability);
    button.setAttribute("aria-pressed", place === data.chosen);
    button.onclick = () => setStateValue("chosen", place);
    return button;
  }));
  if (focused >= 0 && row.children[focused]) row.children[focused].focus();
}
"""

_mount_words = st.components.v2.component("captioner_words", html=_WORDS_HTML, css=_WORDS_CSS, js=_WORDS_JS)


def choose_word(words: Sequence[str], probabilities: Sequence[float], chosen: int, label: str, key: str) -> None:
    """Show the words. The place of the one that is clicked is stored in the session state under `key`."""

    def keep() -> None:
        st.session_state[key] = st.session_state[f"{key}-buttons"]["chosen"]

    shown = [[word, percent(p), round(p, 4)] for word, p in zip(words, probabilities, strict=True)]
    _mount_words(
        key=f"{key}-buttons",
        data={"words": shown, "chosen": chosen, "label": label},
        on_chosen_change=keep,
    )


# `st.html` drops SVG. Drawings come from templates that escape every text.
_mount_drawing = st.components.v2.component(
    "captioner_drawing",
    html="<div></div>",
    js="export default function ({ data, parentElement }) { parentElement.querySelector('div').innerHTML = data }",
)


def drawing(html: str, key: str) -> None:
    """Show an SVG of `drawings`, in the colours of the theme."""
    _mount_drawing(key=key, data=html)
