"""How well near-duplicates are found: variations of pictures are made, and must be found again among all pictures.

    python benchmarks/duplicates.py photos/ --number 1000

It prints, for several thresholds, the share of each kind of variation whose similarity to its picture reaches the
threshold (recall), and how many pairs of different pictures reach it. The first table is for standardised features,
which `captioner find --duplicates` compares; it first leaves out pairs whose vectors are far apart. The second one is
for the matcher's vectors. Among the pairs there may be real near-duplicates: `--show` prints the most similar ones, to
look at.
"""

from __future__ import annotations

import argparse
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

import captioner
from captioner.inference.progress import watched
from captioner.inference.reader import load_reader
from captioner.pictures.find import find_pictures
from captioner.pictures.load import load_image

FAR = 6  # thresholds in the table
Floats = NDArray[np.float32]


def cropped(share: float) -> Callable[[Image.Image, random.Random], Image.Image]:
    """A part with `share` of the width and of the height, anywhere in the picture."""

    def crop(image: Image.Image, rng: random.Random) -> Image.Image:
        width, height = (max(1, round(share * side)) for side in image.size)
        left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        return image.crop((left, top, left + width, top + height))

    return crop


def compressed(image: Image.Image, quality: int) -> Image.Image:
    """The picture after JPEG at a quality."""
    image.save(file := io.BytesIO(), "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def with_text(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with a line of text in a corner."""
    image = image.copy()
    place = (image.width // 20, int(image.height * rng.choice([0.04, 0.9])))
    ImageDraw.Draw(image).text(place, "2024-07-14 holiday", fill="white", font_size=max(10, image.height // 16))
    return image


VARIATIONS: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "crop 90 %": cropped(0.9),
    "crop 80 %": cropped(0.8),
    "crop 70 %": cropped(0.7),
    "half the size": lambda image, rng: image.resize((max(1, image.width // 2), max(1, image.height // 2))),
    "a quarter": lambda image, rng: image.resize((max(1, image.width // 4), max(1, image.height // 4))),
    "JPEG quality 30": lambda image, rng: compressed(image, 30),
    "brightness x 1.3": lambda image, rng: ImageEnhance.Brightness(image).enhance(1.3),
    "brightness x 0.7": lambda image, rng: ImageEnhance.Brightness(image).enhance(0.7),
    "mirrored": lambda image, rng: ImageOps.mirror(image),
    "text on it": with_text,
}


def features(model: captioner.Captioner, paths: list[str]) -> Floats:
    """Features of the pictures and of their variations, (1 + variations, N, F)."""

    def variants(path: str) -> Iterator[Image.Image]:
        image, rng = load_image(path), random.Random(path)
        yield image
        yield from (change(image, rng) for change in VARIATIONS.values())

    rows = [model.encode(list(variants(path))) for path in watched(paths, len(paths))]
    return np.stack(rows, 1)


def table(name: str, vectors: Floats, paths: list[str], shown: int) -> None:
    """Print recall for thresholds at which so many pairs of different pictures are taken for the same."""
    own = (vectors[1:] * vectors[0]).sum(-1)  # (variations, N)
    between = vectors[0] @ vectors[0].T
    pairs = np.triu_indices(len(paths), 1)
    different = np.sort(between[pairs])[::-1]
    print(f"\n{name}: threshold, pairs of different pictures above it, recall of each variation in %")
    print(f"{'':22}" + "".join(f"{kind:>18}" for kind in VARIATIONS))
    for threshold in (0.98, 0.96, 0.94, 0.92, 0.90, 0.88, 0.86, 0.84, 0.82, 0.80, 0.75, 0.70):
        recall = (own >= threshold).mean(1)
        cells = "".join(f"{100 * share:18.1f}" for share in recall)
        print(f"{threshold:8.2f}{int((different >= threshold).sum()):8,}{100 * recall.mean():6.1f}{cells}")
    for place in np.argsort(-between[pairs])[:shown]:
        first, second = pairs[0][place], pairs[1][place]
        print(f"{between[first, second]:.3f}  {paths[first]}  {paths[second]}")


def main() -> None:
    """Measure on a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", help="pictures", metavar="PATH")
    parser.add_argument("--number", type=int, default=1000, help="of pictures [1000]")
    parser.add_argument("--checkpoint", help="a file, or a name [flickr8k]")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--show", type=int, default=0, help="so many of the most similar pairs")
    parser.add_argument("--keep", type=Path, help="a file that keeps the features for the next time")
    args = parser.parse_args()
    paths = find_pictures(args.paths)
    paths = sorted(random.Random(0).sample(paths, min(args.number, len(paths))))
    reader = load_reader(args.checkpoint)
    if args.keep and args.keep.exists():
        found = np.fromfile(args.keep, np.float32).reshape(-1, len(paths), reader.mean.size)
    else:
        found = features(captioner.load(args.checkpoint, precision=args.precision), paths)
        if args.keep:
            found.astype(np.float32).tofile(args.keep)
    table("standardised features", np.stack([reader.alike(part) for part in found]), paths, args.show)
    table("vectors of the matcher", np.stack([reader.pictures(part) for part in found]), paths, args.show)


if __name__ == "__main__":
    main()
