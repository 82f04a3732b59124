"""Measure how fast exported encoders are, and how far their features are from those of torch in float32.

    python benchmarks/exported.py --images DIR FOLDER... [--pictures 96] [--threads 1 2] [--rounds 9]

Each FOLDER is one that `captioner export` wrote from the checkpoint. Encoders take turns, in batches of 32 and with one
batch per thread, as captioner encodes. The pictures are read before. The table shows the median over the rounds in
pictures per second, and its ratio to torch in float32.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import captioner

BATCH = 32


def main() -> None:
    """Measure all encoders in turn and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--checkpoint")
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    engines = {f"torch, {name}": captioner.load(args.checkpoint, "cpu", name) for name in ("float32", "bfloat16")}
    engines |= {folder: captioner.load(folder) for folder in args.folders}
    files = sorted(args.images.iterdir())
    paths = random.Random(0).sample(files, min(args.pictures, len(files)))
    preprocess = engines["torch, float32"].network.about.preprocess
    pixels = np.stack([preprocess.read(path) for path in paths])
    batches = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
    exact, *_ = features = [
        np.concatenate([np.asarray(model.network.encode(batch)) for batch in batches]) for model in engines.values()
    ]
    for name, found in zip(engines, features, strict=True):
        error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        print(f"{name:40}{100 * error:6.2f} % of the features' length")
    for threads in args.threads:
        speeds: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(args.rounds):
            for name, model in engines.items():
                with ThreadPoolExecutor(threads, initializer=model.network.work_alone) as pool:
                    started = time.perf_counter()
                    list(pool.map(model.network.encode, batches * threads))
                    speeds[name].append(threads * len(pixels) / (time.perf_counter() - started))
        plain = statistics.median(speeds["torch, float32"])
        for name, values in speeds.items():
            median = statistics.median(values)
            print(f"{threads} threads  {name:40}{median:8.0f} pictures/s{median / plain:8.2f} x")


if __name__ == "__main__":
    main()
