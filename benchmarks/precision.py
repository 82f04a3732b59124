"""Measure how far the encoder's features in bfloat16 are from those in float32.

    python benchmarks/precision.py --images DIR [--pictures 96]

Two ways of rounding the weights are compared: to the nearest value, and as captioner does it, so that each kernel keeps
its sum. To see what this means for captions, run `captioner evaluate` with --precision float32 and with --precision
bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import random
from pathlib import Path

import torch

from captioner.inference.torch_engine import PictureEncoder
from captioner.network.checkpoint import load_checkpoint
from captioner.network.header import find_checkpoint


def main() -> None:
    """Print the relative error of both ways of rounding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--checkpoint")
    args = parser.parse_args()
    files = sorted(args.images.iterdir())
    paths = random.Random(0).sample(files, min(args.pictures, len(files)))
    loaded = load_checkpoint(find_checkpoint(args.checkpoint))
    exact, ours, plain = (
        PictureEncoder(loaded.model.encoder, loaded.preprocess, precision=name)
        for name in ("float32", "bfloat16", "bfloat16")
    )
    plain.network = copy.deepcopy(exact.network).to(torch.bfloat16)
    features = exact.encode(paths)
    for name, model in (("rounded to nearest", plain), ("kernels keep their sums", ours)):
        error = (model.encode(paths) - features).norm() / features.norm()
        print(f"{name:25}{100 * float(error):5.1f} % of the features' length")


if __name__ == "__main__":
    main()
