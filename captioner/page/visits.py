"""What a visitor has outlasts a reload of the tab, and the sleep of a phone. Nothing goes to disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import streamlit as st

# The tab gives itself a secret number. Unlike an address or a cookie, it is not shared with other tabs or people.
_mount_number = st.components.v2.component(
    "captioner_visit",
    js="""export default function ({ data, setStateValue }) {
      if (data.known) return
      try {
        const bytes = crypto.getRandomValues(new Uint8Array(16))
        sessionStorage.captioner ||= [...bytes].map(byte => byte.toString(16).padStart(2, "0")).join("")
        setStateValue("number", sessionStorage.captioner)
      } catch {} // a browser that stores nothing
    }""",
)


def own(name: str, kind: Callable[[], Any]) -> Any:
    """What the visitor has of this name, at first an empty one of this kind."""
    return st.session_state.setdefault("kept", {}).setdefault(name, kind())


def remember() -> None:
    """Ask the tab for its number. Once it has answered, this session has what earlier ones of the tab had."""
    _mount_number(key="tab", data={"known": "visit" in st.session_state}, on_number_change=_resume)


def _resume() -> None:
    number = st.session_state["tab"]["number"]
    if isinstance(number, str) and re.fullmatch("[0-9a-f]{32}", number):
        st.session_state.visit = number
        kept = _kept(number)
        for name, value in st.session_state.get("kept", {}).items():
            kept.setdefault(name, value)
        st.session_state.kept = kept


@st.cache_resource(max_entries=20, ttl="12h", show_spinner=False)
def _kept(number: str) -> dict[str, Any]:
    """What the tab of this number has. The memory of the visits that are kept is bounded."""
    return {}
