"""The frame of the page: its views, its language and its model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import streamlit as st

import captioner
from captioner.errors import CaptionerError
from captioner.page import models, show, visits
from captioner.page.texts import LANGUAGES, preferred, say
from captioner.page.views import about, caption, compare, folder, inside, sentence

View: TypeAlias = Callable[[str, captioner.Captioner], None]
VIEWS: dict[str, View] = {
    "caption": caption.view,
    "compare": compare.view,
    "inside": inside.view,
    "sentence": sentence.view,
    "folder": folder.view,
    "about": about.view,
}


def main() -> None:
    """Draw the page, once a run."""
    st.set_page_config(page_title="captioner", page_icon="🖼️", layout="wide")
    st.html(show.STYLE)
    pages = [
        st.Page(partial(draw, view), title=say(name), url_path=name, default=name == "caption")
        for name, view in VIEWS.items()
    ]
    page = st.navigation(pages, position="hidden")  # Streamlit's own bar hides the views on a phone
    with st.container(horizontal=True, gap="xxsmall", key="views"):
        for link in pages:
            st.page_link(link)
    body = st.container()
    st.divider()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(say("private"), width="content")
        st.segmented_control(
            say("language"),
            list(LANGUAGES),
            key="language",
            default=preferred(),
            required=True,
            format_func=LANGUAGES.__getitem__,
            label_visibility="collapsed",
            bind="query-params",
        )
    visits.remember()
    with body:  # last, because a view that has more to do runs the script again
        page.run()


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
