"""Thumbnails: small, whole, inline."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from captioner.pictures.load import SIDE, thumbnail


@pytest.mark.parametrize(("size", "expected"), [((1000, 500), (SIDE, SIDE // 2)), ((30, 60), (30, 60))])
def test_a_picture_becomes_a_small_jpeg(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", size, "navy").save(path)
    uri = thumbnail(path)
    assert uri is not None
    kind, data = uri.split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == expected


def test_a_file_that_is_no_picture_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    assert thumbnail(tmp_path / "a.jpg") is None
    assert thumbnail(tmp_path / "not there.jpg") is None
