"""What Ray costs and brings: `captioner caption` on one thread, `captioner cluster` with one worker and with two.

    python benchmarks/ray_captioning.py [--pictures 2000] [--rounds 3]

The pictures are 64 generated JPEGs, 224 to 500 pixels wide, given by many names. Contestants take turns, each round in
a process of its own that captions all with the shipped checkpoint; the median counts. *Start-up* is what a run of two
pictures takes: imports, Ray, workers, the model; *pictures/s* is of the rest. Prints a table in Markdown.
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
    "caption, one thread": ["caption", "-f", "jsonl"],
    "cluster, 1 worker": ["cluster", "--workers", "1"],
    "cluster, 2 workers": ["cluster", "--workers", "2"],
}


def seconds(arguments: list[str], folder: Path, output: Path) -> float:
    """How long one run takes, from the start of its process to its end."""
    command = [sys.executable, "-m", "captioner", *arguments, str(folder), "-q", "-o", str(output)]
    # torch reads the number of threads from here; Ray's workers have one each in any case.
    started = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
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
        print("| runner | start-up | pictures/s |\n|---|---:|---:|")
        for name in RUNNERS:
            start, whole = (statistics.median(taken[name, folder]) for folder in (few, many))
            print(f"| {name} | {start:.1f} s | {(args.pictures - 2) / (whole - start):.0f} |")


if __name__ == "__main__":
    main()
