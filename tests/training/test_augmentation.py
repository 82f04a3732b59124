"""Augmented pictures keep what their captions speak of."""

from __future__ import annotations

import random

from PIL import Image

from captioner.training.augmentation import augmented


def test_augmentation_keeps_most_of_the_picture_and_mirrors_when_told() -> None:
    picture = Image.linear_gradient("L").rotate(90).convert("RGB").resize((100, 50))  # brighter towards one side
    plain = augmented(picture, False, 32, random.Random(3))
    mirrored = augmented(picture, True, 32, random.Random(3))
    assert plain.size == (32, 32)
    assert plain.tobytes() == mirrored.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()
    assert plain.tobytes() != mirrored.tobytes()
    shares = []
    for seed in range(50):
        low, high = augmented(picture, False, 32, random.Random(seed)).convert("L").getextrema()
        shares.append((high - low) / 255)
    assert min(shares) > 0.8
    assert max(shares) - min(shares) > 0.05  # it does vary
