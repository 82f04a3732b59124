"""What captioner is, how it works, and how good the model is."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

import captioner
from captioner.network.header import DEFAULT, shipped_checkpoints
from captioner.page.components import drawing
from captioner.page.drawings import drawn
from captioner.page.models import available
from captioner.page.texts import say

_SCORES = (("bleu_4", "BLEU-4 {:.1f}"), ("cider", "CIDEr {:.1f}"))
# As people write them; others keep the name that torchvision gives them.
_ENCODERS = {"mobilenet_v2": "MobileNetV2", "efficientnet_lite2": "EfficientNet-Lite2"}
_CELLS = {"lstm": "LSTM", "peephole": "LSTM", "gru": "GRU", "rnn": "RNN", "rnn-relu": "RNN"}


def view(name: str, model: captioner.Captioner) -> None:
    """The drawing of the network, the scores of the model, its limits, and the terms of the shipped ones."""
    encoder = _ENCODERS.get(model.config.encoder, model.config.encoder)
    cell = _CELLS[model.config.cell]
    st.header(say("how"), anchor=False)
    sizes = {"size": model.preprocess.size, "feature_size": model.feature_size}
    known = {"description": say("how_alt"), "encoder": encoder, "cell": cell, "memory": cell == "LSTM", **sizes}
    drawing(data=drawn("network", **known), key="network")
    words = {"features": f"{model.feature_size:,}", "words": f"{len(model.vocabulary):,}"}
    st.write(say("how_is", encoder=encoder, cell=cell, **words))
    st.header(say("model"), anchor=False)
    validation = model.provenance.get("validation") or {}
    scores = [shown.format(validation[key]) for key, shown in _SCORES if key in validation]
    if scores:
        st.write(say("scores", scores=", ".join(scores)))
    st.write(say("limits"))
    if name == DEFAULT:  # a person looked at the captions of this checkpoint only
        st.write(say("looked_at"))
    if name in shipped_checkpoints():
        st.write(say("terms"))
    card = Path(available().get(name, Path())).parent / "README.md"
    if card.is_file():
        with st.expander(say("model_card")):
            st.markdown(card.read_text(encoding="utf-8"))
