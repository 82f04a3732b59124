"""How a caption came about: the words considered, where the network looked, the beam, the hidden states."""

from __future__ import annotations

import math
from collections.abc import Sequence

import streamlit as st

from captioner import Captioner, DecodeOptions
from captioner.inference.explanation import Candidate, Explanation, Step
from captioner.page import drawings, pictures
from captioner.page.components import choose_word, drawing
from captioner.page.models import TURN
from captioner.page.pictures import KeptPicture
from captioner.page.texts import say
from captioner.page.views.compare import slider
from captioner.pictures.load import load_image

WEAK = 0.2  # nats: hiding a part that matters less than this tells nothing


def view(name: str, model: Captioner) -> None:
    """One picture and its caption, from all sides."""
    if not (picture := pictures.current(model)):
        return
    options = DecodeOptions("beam", beam_size=slider("beam_size", key="inside-beam"))
    explanation = _explain(name, model, picture, options)
    st.write(say("words_intro"))
    steps = explanation.steps
    chosen = min(st.session_state.get("word", 0), len(steps) - 1)
    words, probabilities = [shown_word(step.word) for step in steps], [step.probability for step in steps]
    choose_word(words, probabilities, chosen, say("words_label"), key="word")
    left, right = st.columns(2, gap="large")
    with left:
        _weighed(explanation, chosen, "" if model.vocabulary.tokens == "character" else " ")
    with right:
        _looked(picture, steps[chosen])
    if explanation.beam:
        _tree(explanation, options)
    _states(words, explanation)


def shown_word(word: str) -> str:
    """A token as people read it."""
    return {"<end>": say("end"), "<unk>": say("unknown")}.get(word, word)


def _explain(name: str, model: Captioner, picture: KeptPicture, options: DecodeOptions) -> Explanation:
    """The explanation, kept until another is asked for."""
    asked = picture.digest, name, options
    if st.session_state.get("explained") != asked:
        with st.spinner(say("looking"), show_time=False), TURN:
            st.session_state.explanation = model.explain(picture.for_model(model), options)
        st.session_state.explained = asked
        # The word that depends most on one part of the picture is shown first.
        peaks = [float(step.heat.max()) for step in st.session_state.explanation.steps]
        st.session_state.word = peaks.index(max(peaks))
    explanation: Explanation = st.session_state.explanation
    return explanation


def _weighed(explanation: Explanation, chosen: int, space: str) -> None:
    st.header(say("weighed"), anchor=False)
    step = explanation.steps[chosen]
    before = space.join(explanation.caption.tokens[:chosen])
    candidates = [Candidate(shown_word(other.word), other.probability) for other in step.candidates]
    caption = say("weighed_is", before=before) if chosen else say("weighed_first")
    told = {"headings": (say("word"), say("probability")), "caption": caption}
    st.html(drawings.drawn("bars", candidates=candidates, chosen=shown_word(step.word), **told))


def _looked(picture: KeptPicture, step: Step) -> None:
    st.header(say("where"), anchor=False)
    word = shown_word(step.word)
    where, strength = drawings.strongest(step.heat)
    place = say(where)
    overlay = drawings.heat_overlay(load_image(picture.preview), step.heat)
    with st.container(key="seen-heat"):
        st.image(overlay, width="stretch", alt=say("where_alt", word=word, place=place))
    if strength < WEAK:
        st.caption(say("where_none", word=word))
    else:
        st.caption(say("where_is", word=word, place=place, factor=f"{math.exp(strength):.2g}"))


def _tree(explanation: Explanation, options: DecodeOptions) -> None:
    st.header(say("tree"), anchor=False)
    words = [step.word for step in explanation.steps]
    describe = say("tree_alt", caption=explanation.caption.text)
    tree = {"beam": explanation.beam, "path": drawings.path_of(explanation.beam, words)}
    drawing(data=drawings.drawn("beam", **tree, end=say("end"), description=describe), key="tree")
    st.caption(say("tree_is", size=options.beam_size, penalty=options.length_penalty))


def _states(words: Sequence[str], explanation: Explanation) -> None:
    st.header(say("state"), anchor=False)
    size = len(explanation.start)
    hidden = (explanation.start, *(step.hidden for step in explanation.steps))
    pairs = zip((say("start_state"), *words), hidden, strict=True)
    rows = [(word, drawings.strip(state), say("state_alt", size=size, word=word)) for word, state in pairs]
    st.html(drawings.drawn("states", rows=rows))
    st.caption(say("state_is", size=size))
