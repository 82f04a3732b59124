"""A visitor's own sentence, scored beside the model's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import streamlit as st

import captioner
from captioner.page import drawings, pictures, show
from captioner.page.texts import say
from captioner.vocab import UNK

EVEN = 0.01  # nats per word: a smaller difference counts as equal


def view(name: str, model: captioner.Captioner) -> None:
    """The picture, a box for a sentence, and both sentences word by word."""
    if not (picture := pictures.current(model)):
        return
    feature = picture.encoded(name, model)
    own, _ = show.decoded(model, feature)
    left, right = st.columns([2, 3], gap="medium")
    with left:
        show.picture(picture, alt=own.text)
    with right:
        st.write(say("sentence_intro"))
        sentence = st.text_input(
            say("your_sentence"), placeholder=say("example"), max_chars=300, key="sentence", persist_state="session"
        )
        if words := model.vocabulary.tokenise(sentence):
            [yours] = model.score_features(feature, sentence)
            _words("yours", words, yours)
            ids = model.vocabulary.encode(sentence)
            unknown = [word for word, token in zip(words, ids, strict=True) if token == UNK]
        _words("its_own", own.tokens, own)
        if words and unknown:
            st.warning(say("not_known", words=", ".join(map(pictures.as_text, unknown))))
        elif words:
            st.write(_verdict(yours, own))


def _words(title: str, words: Sequence[str], caption: captioner.Caption) -> None:
    st.header(say(title), anchor=False)
    ends = () if caption.end_probability is None else (caption.end_probability,)
    shown = [*words, say("end")] if ends else words
    st.html(drawings.drawn("words", words=zip(shown, [*caption.probabilities, *ends], strict=True)))
    st.caption(show.sure(caption), help=say("sure_help"))


def _verdict(yours: captioner.Caption, own: captioner.Caption) -> str:
    gap = math.log(own.mean_probability) - math.log(yours.mean_probability)
    if abs(gap) < EVEN:
        return say("as_likely")
    return say("own_likelier" if gap > 0 else "yours_likelier", factor=f"{math.exp(abs(gap)):.2g}")
