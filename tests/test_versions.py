"""A hundred captions in float32 are the same under every version of torch, torchvision and Pillow that is allowed.

`make test` runs this with the newest versions, `make test-lowest` with the oldest ones. After a change of the shipped
checkpoint, of the sample pictures or of what captions should be, `make golden` writes golden.json anew.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance

import captioner
from captioner.files import sha256_of
from captioner.network.header import find_checkpoint
from captioner.pictures.load import load_image

GOLDEN = Path(__file__).parent / "golden.json"
SAMPLES = sorted(Path(captioner.__file__).parent.glob("*/samples/*.webp"))


def pictures(number: int = 100) -> Iterator[Image.Image]:
    """Parts of the sample pictures, in different light. Only their decoder may differ between versions of Pillow."""
    rng = random.Random(0)
    wholes = [load_image(path) for path in SAMPLES]
    for index in range(number):
        whole = wholes[index % len(wholes)]
        width, height = (rng.randint(side // 4, side) for side in whole.size)
        left, top = rng.randint(0, whole.width - width), rng.randint(0, whole.height - height)
        part = whole.crop((left, top, left + width, top + height))
        yield ImageEnhance.Brightness(part).enhance(rng.choice((0.5, 1.0, 1.5)))


def made_from() -> dict[str, str]:
    """Digests of the files that the captions depend on."""
    return {path.name: sha256_of(path) for path in (find_checkpoint(), *SAMPLES)}


def captions() -> list[str]:
    """The captions of `pictures` by the default checkpoint."""
    model = captioner.load(precision="float32")
    return [caption.text for caption in model.caption_batch(pictures())]


def golden() -> dict[str, Any]:
    """The captions, and what they were made from."""
    return {"made from": made_from(), "captions": captions()}


def test_captions_do_not_depend_on_the_versions_of_torch_and_pillow() -> None:
    wanted = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert wanted["made from"] == made_from(), "the checkpoint or the samples are others now: make golden"
    assert len(set(wanted["captions"])) > 40  # or it would show little
    found = captions()
    different = [pair for pair in zip(wanted["captions"], found, strict=True) if pair[0] != pair[1]]
    assert not different, f"{len(different)} of {len(found)} captions differ from golden.json"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
