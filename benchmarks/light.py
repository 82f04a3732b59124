"""Measure captioner-light: the size of its environment, the first caption of a cold process, and memory.

    make package-light; python benchmarks/light.py [--wheel FILE] [--rounds 10]

The wheel is installed into an empty environment with pip. Each figure of time is of a process of its own. The
contestants take turns, so that a busy machine slows all of them; what other programs take shows in the wall time, and
hardly in the processor time. `full` is the captioner of the environment that runs this file.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
MB = 1e6


class Cost(NamedTuple):
    """What a process took: seconds by the clock, seconds of processors, and bytes of memory at most."""

    wall: float
    cpu: float
    memory: float


def sizes(site: Path) -> list[tuple[str, float, float]]:
    """The name of each installed package, its size in bytes, and how much of that is compiled by pip (.pyc)."""
    found = []
    for package in distributions(path=[str(site)]):
        files = [Path(str(package.locate_file(file))) for file in package.files or ()]
        there = [(file.stat().st_size, file.suffix == ".pyc") for file in files if file.is_file()]
        total, compiled = sum(size for size, _ in there), sum(size for size, is_compiled in there if is_compiled)
        found.append((package.metadata["Name"], float(total), float(compiled)))
    return sorted(found, key=lambda row: -row[1])


def cost(command: list[str], folder: Path, environment: dict[str, str]) -> Cost:
    """Run a command to its end. Raises CalledProcessError."""
    before = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - before
    if process_status := os.waitstatus_to_exitcode(status):
        raise subprocess.CalledProcessError(process_status, command)
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="of captioner-light [the newest in dist]")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    wheel = args.wheel or max((ROOT / "dist").glob("captioner_light-*.whl"), key=lambda file: file.stat().st_mtime)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        python = str(folder / "venv" / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", wheel.resolve()], check=True)
        where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        rows = sizes(Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()))
        tools = [row for row in rows if row[0] in ("pip", "setuptools")]
        print("| package | MB | of these compiled |\n|---|---:|---:|")
        ours = [row for row in rows if row not in tools]
        for label, some in (
            *((row[0], [row]) for row in ours[:12]),
            ("others", ours[12:]),
            ("all", ours),
            ("pip", tools),
        ):
            print(f"| {label} | {sum(row[1] for row in some) / MB:.1f} | {sum(row[2] for row in some) / MB:.1f} |")
        subprocess.run([python, "-c", _DRAW, folder / "a.jpg"], check=True)
        environment = {"PATH": os.environ["PATH"], "CAPTIONER_CACHE": str(folder / "cache")}
        of_clone = {**environment, "PYTHONPATH": str(ROOT)}
        contestants = {
            "light: first caption": ([python, "-m", "captioner", "caption", "a.jpg"], environment),
            "light: help": ([python, "-m", "captioner", "caption", "--help"], environment),
            "light: imports of others": ([python, "-c", "import numpy, PIL.Image, onnxruntime"], environment),
            "full: first caption": ([sys.executable, "-m", "captioner", "caption", "a.jpg"], of_clone),
            "full: import torch": ([sys.executable, "-c", "import torch"], of_clone),
        }
        found: dict[str, list[Cost]] = {label: [] for label in contestants}
        for turn in range(args.rounds + 1):
            for label, (command, variables) in contestants.items():
                taken = cost(command, folder, variables)
                if turn:  # the first round reads from the disk
                    found[label].append(taken)
    print("\n| median | wall, s | processor, s | of `import torch` | memory, MB |\n|---|---:|---:|---:|---:|")
    torch = found["full: import torch"]
    for label, costs in found.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*costs, strict=True))
        ratio = statistics.median(one.cpu / other.cpu for one, other in zip(costs, torch, strict=True))
        print(f"| {label} | {wall:.2f} | {cpu:.2f} | {ratio:.2f} | {memory / MB:.0f} |")


_DRAW = """
import sys
from PIL import Image
Image.radial_gradient("L").resize((1600, 1200)).convert("RGB").save(sys.argv[1])
"""

if __name__ == "__main__":
    main()
