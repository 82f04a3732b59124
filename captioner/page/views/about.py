"""What this is, how it works, and how good the model is."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

import captioner
from captioner.page.components import drawing
from captioner.page.drawings import pipeline
from captioner.page.models import available
from captioner.page.texts import say

_SCORES = (("bleu_4", "BLEU-4 {:.1f}"), ("cider", "CIDEr {:.1f}"))


def view(name: str, model: captioner.Captioner) -> None:
    """The drawing, the model's card, the terms."""
    st.header(say("how"), anchor=False)
    drawing(pipeline(say("how_alt"), model.preprocess.size, model.feature_size), key="pipeline")
    st.write(say("how_is", features=f"{model.feature_size:,}", words=f"{len(model.vocabulary):,}"))
    st.header(say("model"), anchor=False)
    validation = model.provenance.get("validation") or {}
    scores = [shown.format(validation[key]) for key, shown in _SCORES if key in validation]
    if scores:
        st.write(say("scores", scores=", ".join(scores)))
    st.write(say("limits"))
    st.write(say("terms"))
    card = Path(available().get(name, Path())).parent / "README.md"
    if card.is_file():
        with st.expander(say("model_card")):
            st.markdown(card.read_text(encoding="utf-8"))
