"""The first view: a picture and its caption."""

from __future__ import annotations

from pathlib import PurePath

import streamlit as st

import captioner
from captioner.page import pictures, show
from captioner.page.pictures import KeptPicture
from captioner.page.texts import say


def view(name: str, model: captioner.Captioner) -> None:
    """Ask for pictures, and show each with its caption, the newest first."""
    pictures.take_in(model)
    with st.spinner(say("looking"), show_time=False):
        for picture in reversed(list(pictures.taken().values())):
            _result(name, model, picture)
    if len(pictures.taken()) > 1 and st.button(say("clear")):
        pictures.taken().clear()
        st.rerun()


def _result(name: str, model: captioner.Captioner, picture: KeptPicture) -> None:
    best, decode_ms = show.decoded(model, picture.encoded(name, model))
    left, right = st.columns([3, 2], gap="medium")
    left.image(picture.preview, width="stretch", alt=best.text)
    with right:
        with st.container(key=f"answer-{picture.digest[:16]}"):
            show.caption(best)
        with st.container(horizontal=True):
            file = PurePath(picture.name).stem + ".txt"
            key = f"save-{picture.digest}"
            st.download_button(say("save"), best.text + "\n", file, "text/plain", key=key, on_click="ignore")
            if st.button(say("remove"), key=f"remove-{picture.digest}", type="tertiary"):
                del pictures.taken()[picture.digest]
                st.rerun()
        st.caption(say("cost", encode=picture.encode_ms, decode=decode_ms))
