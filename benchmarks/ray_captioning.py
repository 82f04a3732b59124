"""What Ray costs and brings: `captioner caption` on one thread, `captioner cluster` with one worker and with two.

    python benchmarks/ray_captioning.py [--pictures 1500] [--rounds 3]

The pictures are 64 generated JPEGs, 224 to 500 pixels wide, given by many names. Contestants take turns, each round in
a process of its own that captions all with the shipped checkpoint; the median counts. *Start-up* is what a run of two
pictures takes: imports, Ray, workers, the model; *pictures/s* is of the rest. *Predicted* is the number of workers over
the sum of the parts that `scaling.py` measures, also once a round. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import scaling
from speed import make_pictures

RUNNERS = {
    "caption, one thread": (1, ["caption", "-f", "jsonl", "--no-index"]),
    "cluster, 1 worker": (1, ["cluster", "--workers", "1"]),
    "cluster, 2 workers": (2, ["cluster", "--workers", "2"]),
}
# torch reads the number of threads from here; Ray's workers have one each in any case. They are as important as other
# programs then, which slow all contestants alike; by default Ray makes them less so.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}


def seconds(arguments: list[str], folder: Path, output: Path) -> float:
    """How long one run takes, from the start of its process to its end."""
    command = [sys.executable, "-m", "captioner", *arguments, str(folder), "-q", "-o", str(output)]
    started = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_pictures(root, 64, 0)
        many, few = root / "many", root / "few"
        for folder, number in ((many, args.pictures), (few, 2)):
            folder.mkdir()
            for index in range(number):
                (folder / f"{index:06}.jpg").symlink_to(root / "small" / f"{index % 64:04}.jpg")
        taken: dict[tuple[str, Path], list[float]] = {(name, folder): [] for name in RUNNERS for folder in (few, many)}
        paths, costs = [str(path) for path in sorted((root / "small").iterdir())], []
        for round in range(args.rounds):
            costs.append(scaling.a_picture(json.loads(scaling.process("parts", paths, 1))))
            for number, ((name, folder), times) in enumerate(taken.items()):
                times.append(seconds(RUNNERS[name][1], folder, root / f"out-{round}-{number}"))
        print("| runner | start-up | pictures/s | predicted | the prediction is off by |\n|---|---:|---:|---:|---:|")
        for name, (workers, _) in RUNNERS.items():
            start, whole = (statistics.median(taken[name, folder]) for folder in (few, many))
            speed, predicted = (args.pictures - 2) / (whole - start), workers * 1000 / statistics.median(costs)
            error = f"{100 * (predicted / speed - 1):+.0f} %"
            print(f"| {name} | {start:.1f} s | {speed:.0f} | {predicted:.0f} | {error} |")


if __name__ == "__main__":
    main()
