"""Measure how much longer captioning and training take while other programs keep all processors busy.

    python benchmarks/busy.py [--rounds 3] [--pictures 400] [--training 600]

As many other processes as there are processors count without end. A program that shares every processor with one of
them has half of the time, so its fair share is twice the seconds. Threads that wait for each other lose more. Each job
is the command that a user types, start-up included. It runs once alone and once beside the others in each round.

Processor seconds tell where the rest goes. If they grow, the processors themselves do less while they are shared, with
their caches, for example. If they stay, the job waited.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speed import make_pictures

from captioner.machine import available_cpus


@contextmanager
def others(number: int) -> Iterator[None]:
    """So many processes that never rest."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    time.sleep(0.5)  # so that they are seen to be busy
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def seconds(command: list[str], place: Path) -> tuple[float, float]:
    """How long a command of captioner's takes that ends with the place of its output, and its processor seconds."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "captioner", *command, str(place)], check=True, capture_output=True)
    elapsed, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def jobs(folder: Path, pictures: int, training: int) -> dict[str, list[str]]:
    """The commands by their names, but for the place of their output, with what they need in `folder`."""
    make_pictures(folder, pictures, 0)
    shapes = folder / "shapes"
    subprocess.run(
        [sys.executable, "-m", "captioner", "data", "make-shapes", str(shapes), "--pictures", str(training)],
        check=True,
        capture_output=True,
    )
    small = str(folder / "small")
    return {
        "caption a folder": ["caption", small, "--no-index", "--format", "csv", "--output"],
        "caption one picture": ["caption", f"{small}/0000.jpg", "--no-index", "--format", "csv", "--output"],
        "train": [
            *("train", "--captions", str(shapes / "captions.token.txt"), "--images", str(shapes / "images")),
            *("--train-list", str(shapes / "train.txt"), "--val-list", str(shapes / "val.txt")),
            *("--minimum-count", "1", "--epochs", "3", "--finetune-epochs", "1", "--scst-epochs", "1"),
            *("--match-epochs", "1", "--output"),
        ],
    }


def main() -> None:
    """Run each job alone and beside others, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=400, help="in the folder that is captioned")
    parser.add_argument("--training", type=int, default=600, help="pictures to train and validate on")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{os.cpu_count()} processors, {args.rounds} rounds")
        print("| command | alone, s | beside others, s | times as long | fair share | processor s | times as many |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for name, command in jobs(Path(folder), args.pictures, args.training).items():
            alone, beside = [], []
            seconds(command, Path(folder, f"{name}, first"))  # it fills caches
            for number in range(args.rounds):
                alone.append(seconds(command, Path(folder, f"{name}, alone {number}")))
                with others(available_cpus()):
                    beside.append(seconds(command, Path(folder, f"{name}, beside {number}")))
            (clock, cpu), (clock_beside, cpu_beside) = medians(alone), medians(beside)
            ratio, ratio_cpu = medians([(b[0] / a[0], b[1] / a[1]) for a, b in zip(alone, beside, strict=True)])
            times = (
                f"{clock:.1f} | {clock_beside:.1f} | {ratio:.2f} | 2 | {cpu:.1f} and {cpu_beside:.1f} | {ratio_cpu:.2f}"
            )
            print(f"| {name} | {times} |", flush=True)


def medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """The medians of the first and of the second numbers."""
    first, second = zip(*pairs, strict=True)
    return statistics.median(first), statistics.median(second)


if __name__ == "__main__":
    main()
