"""The frame of the page: its views, its language and its model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import streamlit as st

import captioner
from captioner.errors import CaptionerError
from captioner.page import models, show
from captioner.page.texts import LANGUAGES, language, say
from captioner.page.views import about as about_view
from captioner.page.views import caption as caption_view
from captioner.page.views import compare as compare_view
from captioner.page.views import folder as folder_view
from captioner.page.views import inside as inside_view
from captioner.page.views import sentence as sentence_view

View: TypeAlias = Callable[[str, captioner.Captioner], None]
VIEWS: dict[str, View] = {
    "caption": caption_view.view,
    "compare": compare_view.view,
    "inside": inside_view.view,
    "sentence": sentence_view.view,
    "folder": folder_view.view,
    "about": about_view.view,
}


def main() -> None:
    """Draw the page, once a run."""
    st.set_page_config(page_title="captioner", page_icon="🖼️", layout="wide")
    st.html(show.STYLE)
    language()  # fixed before the first text
    page = st.navigation(
        [
            st.Page(partial(draw, view), title=say(name), url_path=name, default=name == "caption")
            for name, view in VIEWS.items()
        ],
        position="top",
    )
    page.run()
    st.divider()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(say("private"), width="content")
        st.segmented_control(
            say("language"),
            list(LANGUAGES),
            key="language",
            required=True,
            format_func=lambda code: LANGUAGES[code],
            label_visibility="collapsed",
        )


def draw(view: View) -> None:
    """Show a view, or the reason why the model cannot be loaded."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.title(say("title"), anchor=False, width="content")
        name = models.choose_model()
    try:
        model = models.loaded(name)
    except CaptionerError as error:
        st.error(say("no_model", reason=error))
        return
    view(name, model)
