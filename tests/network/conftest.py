"""A tiny checkpoint that a test may change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from network.checkpoint_files import Content, Tensors, read_parts, write_parts


@pytest.fixture
def changed(tiny_checkpoint_file: Path, tmp_path: Path) -> Callable[[Callable[[Content, Tensors], Any]], Path]:
    """The tiny checkpoint with a change; a text that the change returns takes the place of the description."""

    def make(change: Callable[[Content, Tensors], Any]) -> Path:
        content, tensors = read_parts(tiny_checkpoint_file)
        text = change(content, tensors)
        return write_parts(tmp_path / "changed.safetensors", text if isinstance(text, str) else content, tensors)

    return make
