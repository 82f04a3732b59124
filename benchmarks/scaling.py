"""Measure what each part of captioning costs, what speed that predicts, and how training scales to two processes.

    python benchmarks/scaling.py --only captioning
    python benchmarks/scaling.py --only training

Without `--only` the script prints all four tables:

- *Parts.* Each part is timed on its own, on one thread, a batch at a time: reading and decoding a JPEG file, resizing
  it, encoding, generating with a beam of 3 (and greedily), the digest of the file, and writing a line of jsonl. It is
  the processor's time that counts, so that other programs hardly matter.
- *Prediction.* A worker does nothing else, so the speed should be the number of workers over the sum of these costs.
  *Measured* is the speed for a whole folder, with the process bound to that many processors.
- *Plan.* What the sum predicts for very many pictures. See `plan` for what it assumes.
- *Training.* Both stages run under torchrun with the same global batch, on one and on two processes of one thread each.
  These runs do not take turns with others.

Pictures are generated, and captions are random. docs/scaling.md explains the results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from speed import make_pictures

import captioner
from captioner.bulk.formats import writer
from captioner.files import sha256_of
from captioner.inference.results import row_of
from captioner.machine import available_cpus, keep_freed_memory
from captioner.network.encoder import channels_last
from captioner.pictures.load import load_image
from captioner.training.config import TrainConfig
from captioner.training.optimiser import Average, Optimiser
from captioner.training.ranks import joined_ranks
from captioner.training.stages import EndToEndStage, FrozenStage, Stage

BATCH = 32
CORES, PICTURE, ROW = 16, 60e3, 1e3  # of a node; bytes of a picture, bytes of a row
CORE_HOUR, REQUEST, SHARD = 0.04, 0.4e-6, 2000  # money, money, pictures


def parts(paths: list[str], rounds: int) -> dict[str, float]:
    """Time each part of captioning. Returns the median milliseconds of a processor per picture."""
    model = captioner.load()
    model.network.work_alone()
    batch = paths[:BATCH]
    images = [load_image(path, smallest=2 * model.preprocess.size) for path in batch]
    pixels = [model.preprocess.pixels(image) for image in images]
    stacked = np.stack(pixels)
    features = model.encode_pixels(stacked)
    greedy = captioner.DecodeOptions("greedy")
    results = list(model.caption_files(batch))
    render = writer("jsonl", 1, None)
    steps: dict[str, Callable[[], object]] = {
        "read and decode": lambda: [load_image(path, smallest=2 * model.preprocess.size) for path in batch],
        "resize": lambda: [model.preprocess.pixels(image) for image in images],
        "encode": lambda: model.encode_pixels(stacked),
        "generate, beam 3": lambda: model.caption_features(features),
        "generate, greedy": lambda: model.caption_features(features, greedy),
        "digest": lambda: [sha256_of(Path(path)) for path in batch],
        "write": lambda: list(render(row_of(result) for result in results)),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    model.network.work_alone()  # again, because captioning the batch above reset it
    for _ in range(rounds + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            times[name].append((time.process_time() - started) * 1000 / BATCH)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def a_picture(costs: dict[str, float]) -> float:
    """The sum of the parts in milliseconds."""
    return sum(cost for name, cost in costs.items() if name != "generate, greedy")


def plan(pictures: float, nodes: int, ms: float) -> dict[str, float]:
    """What so many pictures take on nodes of `CORES`, at so many milliseconds of a core for each."""
    core_hours = pictures * ms / 3.6e6
    return {
        "hours": core_hours / CORES / nodes,
        "read, Gbit/s in all": nodes * CORES * 1000 / ms * PICTURE * 8 / 1e9,
        "core-hours": core_hours,
        "money: computing": core_hours * CORE_HOUR,
        "requests, one per picture": pictures * REQUEST,
        f"requests, shards of {SHARD:,}": pictures * REQUEST / SHARD,
        "rows, GB": pictures * ROW / 1e9,
    }


def folder(paths: list[str], workers: int, rounds: int) -> float:
    """Caption a whole folder on this many processors. Returns the median pictures per second."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    model = captioner.load()
    speeds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        for result in model.caption_files(paths):
            assert result.caption
        speeds.append(len(paths) / (time.perf_counter() - started))
    return statistics.median(speeds[1:])


def train(paths: list[str], rounds: int) -> dict[str, float]:
    """Train in each stage as one of torchrun's processes. Returns the median seconds per step."""
    from training import material

    keep_freed_memory()
    torch.set_num_threads(1)
    with joined_ranks() as ranks:
        torch.manual_seed(0)
        config = TrainConfig()
        data = material(config, 5 * len(paths))
        data = dataclasses.replace(
            data,
            ranks=ranks,
            paths=paths,
        )
        channels_last(data.model.encoder)
        frozen, end_to_end = FrozenStage(data), EndToEndStage(data)
        return {"decoder": _step(frozen, 20, rounds), "end to end": _step(end_to_end, 4, rounds)}


def _step(stage: Stage, steps: int, rounds: int) -> float:
    stage.prepare()
    optimiser = Optimiser(stage.weights, 0.1, 5.0, 1000)
    average = Average(optimiser.named, 100)
    batches = stage.batches(torch.Generator().manual_seed(0))[:steps]
    times = []
    for _ in range(rounds + 1):
        losses = stage.losses(batches, "benchmark")
        started = time.perf_counter()
        for loss in losses:
            optimiser.step(loss.total)
            average.update()
        times.append((time.perf_counter() - started) / steps)
    return statistics.median(times[1:])


def process(task: str, paths: list[str], rounds: int, ranks: int = 0) -> str:
    """Run a task of this file in its own process, or in several under torchrun. Returns the last line it printed."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks else []
    command = [sys.executable, *torchrun, __file__, "--task", task, "--rounds", str(rounds)]
    done = subprocess.run(command, input=json.dumps(paths), stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def main() -> None:
    """Measure everything and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pictures", type=int, default=512, help="pictures in the folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("captioning", "training"))
    parser.add_argument("--task", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        _task(args.task, args.rounds)
        return
    with tempfile.TemporaryDirectory() as directory:
        make_pictures(Path(directory), args.pictures, 0)
        paths = [str(path) for path in sorted((Path(directory) / "small").iterdir())]
        if args.only != "training":
            _captioning(paths, args.rounds)
        if args.only != "captioning":
            _training(Path(directory), paths, args.rounds)


def _captioning(paths: list[str], rounds: int) -> None:
    costs = json.loads(process("parts", paths, rounds))
    print("| part | ms per picture, one thread |\n|---|---:|")
    for name, cost in costs.items():
        print(f"| {name} | {cost:.2f} |")
    ms = a_picture(costs)
    print(f"| **in all** | **{ms:.1f}** |")
    print("\n| processors | predicted pictures/s | measured | the prediction is off by |\n|---:|---:|---:|---:|")
    for workers in range(1, 1 + min(2, available_cpus())):
        predicted, measured = workers * 1000 / ms, float(process(f"folder {workers}", paths, rounds))
        print(f"| {workers} | {predicted:.0f} | {measured:.0f} | {100 * (predicted / measured - 1):+.0f} % |")
    print(f"\n| pictures | nodes | {' | '.join(plan(1, 1, ms))} |\n|{'---:|' * (2 + len(plan(1, 1, ms)))}")
    for pictures, nodes in ((number, nodes) for number in (1e7, 1e9) for nodes in (1, 10, 100)):
        figures = (f"{float(f'{figure:.2g}'):,g}" for figure in plan(pictures, nodes, ms).values())
        print(f"| {pictures / 1e6:,.0f} million | {nodes} | {' | '.join(figures)} |")


def _training(directory: Path, paths: list[str], rounds: int) -> None:
    listing = directory / "paths.json"
    listing.write_text(json.dumps(paths))
    steps = [json.loads(process(f"train {listing}", [], rounds, ranks)) for ranks in (1, 2)]
    print("\n| training, ms per step, one thread each | 1 process | 2 | times as fast |\n|---|---:|---:|---:|")
    for name in steps[0]:
        one, two = (step[name] * 1000 for step in steps)
        print(f"| {name} | {one:.0f} | {two:.0f} | {one / two:.2f} |")


def _task(task: str, rounds: int) -> None:
    """Run the task that this process was started for and print its result."""
    name, _, argument = task.partition(" ")
    if name == "train":  # torchrun's processes have no stdin
        result: object = train(json.loads(Path(argument).read_text()), rounds)
    else:
        paths = json.loads(sys.stdin.read())
        result = parts(paths, rounds) if name == "parts" else folder(paths, int(argument), rounds)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(result))


if __name__ == "__main__":
    main()
