"""The checkpoints that come with captioner, by their short names.

A file is called NAME-ENCODER.safetensors: flickr8k-mobilenet_v2.safetensors is `flickr8k`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from captioner.errors import CheckpointError

DEFAULT = "flickr8k"
LANGUAGES = {"flickr8k": "English", "flickr8k-zh": "中文"}  # in which they write, as their speakers call it


def shipped_checkpoints() -> dict[str, Path]:
    """Files by short name, the default first; empty where none came along."""
    package = Path(__file__).parent.parent
    for folder in (package / "checkpoints", package.parent / "checkpoints"):  # installed; in a clone
        files = {path.stem.rpartition("-")[0]: path for path in folder.glob("*-*.safetensors")}
        if files:
            return dict(sorted(files.items(), key=lambda item: (item[0] != DEFAULT, item[0])))
    return {}


def find_checkpoint(name: str | os.PathLike[str] | None = None) -> Path:
    """The file that is meant by a path, by the short name of a shipped checkpoint, or by None, the default one.

    A short name wins over a file of that name in the current folder, which is still `./flickr8k`.
    Raises CheckpointError when there is neither.
    """
    shipped = shipped_checkpoints()
    if name is None:
        if DEFAULT not in shipped:
            raise CheckpointError("the shipped checkpoint is not there: give a file with --checkpoint")
        return shipped[DEFAULT]
    if os.fspath(name) in shipped:
        return shipped[os.fspath(name)]
    bare = Path(name).name == os.fspath(name) and not Path(name).suffix
    if bare and not Path(name).exists():
        raise CheckpointError(f"{name}: no such checkpoint: give a file, or one of {', '.join(shipped)}")
    return Path(name)


def describe(path: Path) -> dict[str, Any]:
    """What the header of a checkpoint says, without its weights and without torch. For shipped ones: it trusts them."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        content: dict[str, Any] = json.loads((file.metadata() or {})["captioner"])
    return content
