"""What a visitor has outlasts a reload of the tab, and the sleep of a phone. Nothing goes to disk."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any

import streamlit as st

# The tab stores the secret number of its first session. Unlike an address or a cookie, it is not shared with other
# tabs or people. A later session of the tab, after a reload, is told this number.
_mount_number = st.components.v2.component(
    "captioner_visit",
    js="""let told // the session that knows: telling it again would interrupt its script, again and again
    export default function ({ data, setStateValue }) {
      try {
        const stored = sessionStorage.captioner ||= data
        if (stored === data || told === data) return
        told = data
        setStateValue("number", stored)
      } catch {} // a browser that stores nothing
    }""",
)


def own(name: str, kind: Callable[[], Any]) -> Any:
    """What the visitor has of this name, at first an empty one of this kind."""
    _number()
    return st.session_state.kept.setdefault(name, kind())


def remember() -> None:
    """Let the tab store the number of this session, or tell the one that it has, whose belongings this session gets."""
    _mount_number(key="tab", data=_number(), on_number_change=_resume)


def _number() -> str:
    """The number of the visit, a new one if this session has none."""
    if "visit" not in st.session_state:
        _take(secrets.token_hex(16))
    number: str = st.session_state.visit
    return number


def _resume() -> None:
    number = st.session_state["tab"]["number"]
    if isinstance(number, str) and re.fullmatch("[0-9a-f]{32}", number):
        _take(number)


def _take(number: str) -> None:
    st.session_state.visit, st.session_state.kept = number, _kept(number)


@st.cache_resource(max_entries=20, ttl="12h", show_spinner=False)
def _kept(number: str) -> dict[str, Any]:
    """What the visit of this number has. The memory of the visits that are kept is bounded."""
    return {}
