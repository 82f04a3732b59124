"""Measure what Ray costs: `captioner caption` on one thread, and `captioner cluster` with one worker and with two.

    python benchmarks/ray_captioning.py [--pictures 2000] [--rounds 3]

The pictures are 64 generated JPEGs, 224 to 500 pixels wide, each linked under many names. The contestants take turns.
Every round is a process of its own that captions all pictures with the shipped checkpoint. The figures are medians.
*Start-up* is the time of a run with two pictures: imports, Ray, workers, the model. *Pictures/s* is the speed for the
rest. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from speed import make_pictures

RUNNERS = {
    "captioner caption, one thread": ["-f", "jsonl"],
    "captioner cluster, 1 worker": ["--runner", "ray", "--workers", "1"],
    "captioner cluster, 2 workers": ["--runner", "ray", "--workers", "2"],
}


def seconds(arguments: list[str], folder: Path, output: Path) -> float:
    """Time one run, from the start of its process to its end."""
    command = [sys.executable, "-m", "captioner", "caption", str(folder), "-q", "-o", str(output), *arguments]
    # torch takes its number of threads from this variable. Ray's workers always have one thread each.
    started = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure all contestants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
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
        for round in range(args.rounds):
            for number, ((name, folder), times) in enumerate(taken.items()):
                times.append(seconds(RUNNERS[name], folder, root / f"out-{round}-{number}"))
        print("| command | start-up | pictures/s after it |\n|---|---:|---:|")
        for name in RUNNERS:
            start, whole = (statistics.median(taken[name, folder]) for folder in (few, many))
            print(f"| {name} | {start:.1f} s | {(args.pictures - 2) / (whole - start):.0f} |")


if __name__ == "__main__":
    main()
