"""The first view: a picture and its caption."""

from __future__ import annotations

from functools import partial
from pathlib import PurePath

import streamlit as st

import captioner
from captioner.page import pictures, show
from captioner.page.pictures import KeptPicture
from captioner.page.texts import say


def view(name: str, model: captioner.Captioner) -> None:
    """Ask for pictures, and show each with its caption, the newest first."""
    with pictures.bar(model):
        if pictures.taken():
            st.button(say("clear"), on_click=pictures.taken().clear, type="tertiary")
    with st.spinner(say("looking"), show_time=False):
        for picture in reversed(list(pictures.taken().values())):
            _result(name, model, picture)


def _result(name: str, model: captioner.Captioner, picture: KeptPicture) -> None:
    best, decode_ms = show.decoded(model, picture.encoded(name, model))
    left, right = st.columns([3, 2], gap="medium")
    with left:
        show.picture(picture, alt=best.text)
    with right:
        st.caption(pictures.as_text(picture.name))
        with st.container(key=f"answer-{picture.digest[:16]}"):
            show.caption(best)
        with st.container(horizontal=True):
            file = PurePath(picture.name).stem + ".txt"
            key = f"save-{picture.digest}"
            st.download_button(say("save"), best.text + "\n", file, "text/plain", key=key, on_click="ignore")
            remove = partial(pictures.remove, picture.digest)
            st.button(say("remove"), key=f"remove-{picture.digest}", type="tertiary", on_click=remove)
        st.caption(say("cost", encode=picture.encode_ms, decode=decode_ms))
