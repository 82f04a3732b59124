"""The example of docs/export.md, as a reader would copy it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw_picture

from captioner.export.folder import export_model

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)
PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_caption_needs_neither_torch_nor_captioner(tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    folder = export_model(tiny_checkpoint_file, tmp_path / "exported")
    draw_picture(0).save(tmp_path / "photo.jpg")
    [example] = re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE)
    code = f"import sys; sys.modules['torch'] = sys.modules['captioner'] = None\n{example}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    about = json.loads((folder / "captioner.json").read_text(encoding="utf-8"))
    assert done.stdout.split()
    assert set(done.stdout.split()) <= set(about["header"]["vocabulary"][4:])


@pytest.mark.slow
def test_the_tables_name_every_file_and_every_key(finder_checkpoint_file: Path, tmp_path: Path) -> None:
    folder = export_model(finder_checkpoint_file, tmp_path / "exported")
    about = json.loads((folder / "captioner.json").read_text(encoding="utf-8"))
    named = {name for row in re.findall(r"(?m)^\| (`.*?) \|", PAGE) for name in re.findall("`(.*?)`", row)}
    assert named >= {path.name for path in folder.iterdir()}
    assert named >= about.keys()
    others = named - {path.name for path in folder.iterdir()} - about.keys()
    assert all(name.startswith("--bits ") for name in others), others
