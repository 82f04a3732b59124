"""The checkpoints that a visitor may choose, each loaded once a process."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

import numpy as np
import streamlit as st

import captioner
from captioner.errors import CheckpointError
from captioner.network.header import DEFAULT, LANGUAGES, read_header, shipped_checkpoints
from captioner.page.texts import language, say


def given_folder() -> Path | None:
    """The folder in `streamlit run app.py -- --checkpoints FOLDER`. What a visitor types never becomes a path."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--checkpoints", type=Path)
    folder: Path | None = parser.parse_known_args(sys.argv[1:])[0].checkpoints
    return folder


def available() -> dict[str, Path]:
    """Checkpoint files by the name under which they are offered: shipped ones, then those of the folder given."""
    files = dict(shipped_checkpoints())
    if folder := given_folder():
        files.update({path.stem: path for path in sorted(folder.glob("*.safetensors")) if _is_checkpoint(path)})
    return files


def _is_checkpoint(path: Path) -> bool:
    """Whether a file is one at first sight: beside it in a run's folder lies what `--resume` goes on from."""
    try:
        read_header(path)
    except CheckpointError:
        return False
    return True


def choose() -> str:
    """The checkpoint that the visitor chose, by name; where there is but one, nothing to choose is shown."""
    names = list(available()) or [DEFAULT]
    preferred = "flickr8k-zh" if language() == "zh" else DEFAULT
    if st.session_state.get("model") not in names:
        st.session_state.model = preferred if preferred in names else names[0]
    if len(names) > 1:
        st.segmented_control(
            say("captions_in"),
            names,
            key="model",
            required=True,
            format_func=lambda name: LANGUAGES.get(name, name),
        )
    chosen: str = st.session_state.model
    return chosen


def load(name: str) -> captioner.Captioner:
    """The Captioner of a name that `choose` gave. Raises CheckpointError."""
    with st.spinner(say("loading"), show_time=False):
        return _load(name, available().get(name))


@st.cache_resource(show_spinner=False)
def _load(name: str, path: Path | None) -> captioner.Captioner:
    model = captioner.load(path or name)
    model.caption(np.zeros((8, 8, 3), np.uint8))  # the first time takes longer: not at a visitor's expense
    return model


@st.cache_resource(show_spinner=False)
def turn() -> threading.Lock:
    """Held while a picture goes through the encoder: one at a time is as fast and bounds their memory."""
    return threading.Lock()
