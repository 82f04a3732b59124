"""Fill the index of pictures with a million made-up features, and search it: time per batch, memory, disk.

    python benchmarks/million_index.py --number 1000000

The pictures are the hard links of `million.py`. Features are made up, and so are digests, since the links share their
content. Every batch is looked up and added as `captioner caption` does it. Then `captioner find` searches for a
sentence, in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from million import make_pictures, peak_memory

BATCH = 32


def fill(folder: Path, file: Path, number: int, steps: int = 10) -> Iterator[tuple[int, float, float, int]]:
    """Add all pictures. Yields how many are in, CPU seconds and seconds a batch since the last time, and the peak."""
    from captioner.bulk.index import IndexFile
    from captioner.bulk.moves import File, stamp_of
    from captioner.bulk.reuse import _PIXELS
    from captioner.files import sha256_of
    from captioner.inference.parallel import in_batches
    from captioner.inference.reader import load_reader
    from captioner.network.header import find_checkpoint
    from captioner.pictures.find import each_picture

    checkpoint = find_checkpoint(None)
    reader = load_reader(checkpoint)
    index = IndexFile(file, f"{sha256_of(checkpoint)} bfloat16 torch {_PIXELS}", reader, print)
    rng = np.random.default_rng(1)
    noise = (reader.mean + reader.std * rng.standard_normal((4096, len(reader.mean)))).astype(np.float32)
    noise = (noise.view(np.uint32) & 0xFFFF0000).view(np.float32)  # as numbers in bfloat16 are
    done, every = 0, max(BATCH, number // steps)
    began, cpu, since = time.perf_counter(), time.process_time(), 0
    for paths in in_batches(each_picture([str(folder)], recursive=True), BATCH):
        digests = [hashlib.sha256(path.encode()).digest() for path in paths]
        index.known(paths)
        index.features(digests, 0)
        files = [File(path, stamp_of(path), digest) for path, digest in zip(paths, digests, strict=True)]
        index.add(files, noise[rng.integers(len(noise), size=len(paths))], 0)
        done, since = done + len(paths), since + 1
        if done // every > (done - len(paths)) // every or done == number:
            yield done, (time.process_time() - cpu) / since, (time.perf_counter() - began) / since, peak_memory()
            began, cpu, since = time.perf_counter(), time.process_time(), 0


def settle(folder: Path) -> None:
    """Make the pictures old: those that were just changed are not trusted to stay as they are."""
    for source in folder.glob("source-*.jpg"):
        os.utime(source, (source.stat().st_mtime - 3600,) * 2)


def search(folder: Path, file: Path) -> dict[str, Any]:
    """What `captioner find` takes in a process of its own."""
    return measured(["find", "a dog in the snow", str(folder), "-r", "--index", str(file), "-n", "3", "-q"])


def measured(arguments: list[str]) -> dict[str, Any]:
    """The CPU seconds, seconds and peak of a command, and the lines that it wrote."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--one", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    cpu, peak = done.stderr.splitlines()[-1].split()
    return {
        "cpu": float(cpu),
        "seconds": time.perf_counter() - began,
        "peak": int(peak),
        "lines": done.stdout.splitlines(),
    }


def one(arguments: list[str]) -> None:
    """Run a command of captioner in this process, and end stderr with its CPU seconds and its peak."""
    from captioner.cli.main import main

    code = main(arguments)
    print(f"\n{time.process_time()} {peak_memory()}", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Print a line for each tenth, and one for the search."""
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=1_000_000)
    parser.add_argument("--scratch", type=Path, help="a folder for what is made; deleted at the end")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder, file = Path(scratch) / "pictures", Path(scratch) / "index" / "made-up.sqlite"
        make_pictures(folder, args.number)
        settle(folder.parent)
        print(f"{'pictures':>12}{'CPU ms a batch':>16}{'ms a batch':>12}{'peak MB':>9}{'disk, kB a picture':>20}")
        for done, cpu, seconds, peak in fill(folder, file, args.number):
            size = sum(each.stat().st_size for each in file.parent.iterdir()) / done / 1000
            print(f"{done:12,}{1000 * cpu:16.2f}{1000 * seconds:12.2f}{peak / 1e6:9.0f}{size:20.2f}", flush=True)
        for _ in range(2):
            found = search(folder, file)
            print(f"find: {found['cpu']:.1f} s of CPU, {found['seconds']:.1f} s, {found['peak'] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
