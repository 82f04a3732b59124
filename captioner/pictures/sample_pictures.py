"""Photographs to try captioner with. samples/README.md names their authors and licences."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "samples"
SAMPLES = {name: _FOLDER / f"{name}.webp" for name in ("photographer", "cat")}
