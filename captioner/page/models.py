"""The checkpoints that a visitor may choose. Each is loaded once for all visitors."""

from __future__ import annotations

import argparse
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import streamlit as st

import captioner
from captioner.errors import CheckpointError
from captioner.network.header import DEFAULT, EXPORTED, LANGUAGES, read_header, shipped_checkpoints
from captioner.page.texts import language, say

# Held while a picture goes through the encoder. One at a time is as fast as several, and bounds the memory.
TURN = threading.Lock()


def given() -> argparse.Namespace:
    """What follows in `streamlit run app.py -- --checkpoints FOLDER --folder FOLDER --format FORMAT`.

    Nothing that a visitor types becomes a path.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--folder")
    parser.add_argument("--format", default="xmp", choices=("xmp", "sidecar", "embed"))
    return parser.parse_known_args(sys.argv[1:])[0]


def available() -> dict[str, Path]:
    """Checkpoint files by the name that the page gives them: the shipped ones, then those of the given folder."""
    files, folder = dict(shipped_checkpoints()), given().checkpoints
    for path in sorted(folder.glob("*.safetensors")) if folder else ():
        if path.with_name(EXPORTED).exists():  # a part of an exported model, which cannot show the inside of a caption
            continue
        with suppress(CheckpointError):  # other files, such as the state that `--resume` goes on from, are not offered
            read_header(path)
            files[path.stem] = path
    return files


def choose_model() -> str:
    """The name of the checkpoint that the visitor chose. With only one checkpoint there is no choice to show."""
    names = list(available()) or [DEFAULT]
    preferred = "flickr8k-zh" if language() == "zh" else DEFAULT
    default = preferred if preferred in names else names[0]
    if len(names) == 1:
        return default
    shown = {name: LANGUAGES.get(name, name) for name in names}
    return st.segmented_control(
        say("captions_in"),
        names,
        default=default,
        required=True,
        format_func=shown.__getitem__,
        key="model",
        bind="query-params",
    )


def loaded(name: str) -> captioner.Captioner:
    """The Captioner of a name from `choose_model`. Raises CheckpointError."""
    with st.spinner(say("loading"), show_time=False):
        return _load(name, available().get(name))


@st.cache_resource(show_spinner=False)
def _load(name: str, path: Path | None) -> captioner.Captioner:
    model = captioner.load(path or name)
    model.caption(np.zeros((8, 8, 3), np.uint8))  # the first caption takes longer, so no visitor should wait for it
    return model
