"""Vectors beside captions: those of the reader, in the order of the pictures, whatever these are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import draw_picture

import captioner
from captioner.bulk.vectors import Vectors
from captioner.errors import ImageError


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_vectors_are_those_of_the_pictures_that_can_be_read(finder_checkpoint_file: Path, batch_size: int) -> None:
    model = captioner.load(finder_checkpoint_file, precision="float32")
    reader, images = model.reader(), [draw_picture(index) for index in range(5)]
    named = [("same name", image) for image in images]
    bad = ("same name", ImageError("missing"))
    vectors = Vectors(reader)
    given = iter([*named[:2], bad, *named[2:], bad])
    results = list(model.caption_named(vectors.numbered(given), None, batch_size, store=vectors))
    assert [result.error is None for result in results] == [True, True, False, True, True, True, False]
    captions = [result.caption.text for result in results if result.caption]
    assert captions == [caption.text for caption in model.caption_batch(images)]
    found = vectors.in_order()
    np.testing.assert_allclose(found, reader.pictures(model.encode(images)), atol=1e-5)
    assert np.abs(found[1:] - found[:-1]).max(1).min() > 0.01  # so that a wrong order would be noticed


def test_no_pictures_no_vectors(finder_checkpoint_file: Path) -> None:
    reader = captioner.load(finder_checkpoint_file).reader()
    assert Vectors(reader).in_order().shape == (0, reader.size)
