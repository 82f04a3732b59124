"""The texts of the page in the visitor's language. They stand in texts.json, in English and in Simplified Chinese."""

from __future__ import annotations

import json
from pathlib import Path

import streamlit as st

LANGUAGES = {"en": "English", "zh": "简体中文"}
TEXTS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def language() -> str:
    """The language that the visitor chose or that the address names, otherwise the one that the browser prefers."""
    chosen = st.session_state.get("language") or st.query_params.get("language")
    return chosen if chosen in LANGUAGES else preferred()


def preferred() -> str:
    """The language that the browser prefers."""
    return "zh" if (st.context.locale or "").lower().startswith("zh") else "en"


def say(key: str, **values: object) -> str:
    """A text of TEXTS in the visitor's language, with the values filled in."""
    return TEXTS[key][language()].format(**values)
