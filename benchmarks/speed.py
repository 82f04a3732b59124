"""Measure captioner's speed against a plain loop over the same checkpoint, and its overhead on top of the arithmetic.

    python benchmarks/speed.py [--images DIR] [--rounds 5] [--only ROW ...] [--largest 10000]

The *plain loop* opens pictures with Pillow, applies torchvision's transforms, and runs the unchanged network in batches
of 32, in float32. It decodes greedily until the last caption of a batch has ended.

Every contestant is a process of its own. They take turns, one round each. Each figure is the median over the rounds of
the ratio to the contestant that ran beside it, so that a busy machine slows both.

Without --images, the pictures are crops of matplotlib's sample photograph with noise, 224 to 500 pixels wide.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from turns import answer_rounds, paired, take_turns

BATCH = 32
TOGETHER = 8  # pictures that captioner's encoder takes at a time
IMPORTS = (
    "import torch; from captioner.network.torchvision_compat import prepare_torchvision as p; p(); import torchvision"
)
ROWS = ("folder", "bare", "products", "photos", "beams", "one", "cold", "help", "same", "memory")


def make_pictures(folder: Path, number: int, photos: int) -> None:
    """Make JPEG files: `number` of 224 to 500 pixels in folder/small, `photos` of 12 megapixels in folder/large."""
    import numpy as np
    from matplotlib import cbook
    from PIL import Image

    rng = np.random.default_rng(0)
    photograph = Image.open(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))).convert("RGB")
    for name, count in (("small", number), ("large", photos)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            width = int(rng.integers(224, 501)) if name == "small" else 4000
            height = width * 3 // 4
            x, y = rng.uniform(0, 0.5, 2) * photograph.size
            box = (x, y, x + photograph.width / 2, y + photograph.height / 2)
            pixels = np.asarray(photograph.resize((width, height), Image.Resampling.BICUBIC, box))
            noise = rng.normal(0, 6, (height, width, 1)).astype(np.int16)
            picture = Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
            picture.save(folder / name / f"{index:04}.jpg", quality=90)


# The contestants. Each one prepares itself and returns a function that runs one round and returns its captions.


def plain_loop(paths: list[str]) -> Callable[[], list[str]]:
    """Prepare the plain loop that is described at the top of this file."""
    import torch
    from PIL import Image

    from captioner.network.checkpoint import load_checkpoint
    from captioner.network.header import find_checkpoint
    from captioner.network.torchvision_compat import prepare_torchvision
    from captioner.vocab import END, PAD, START, UNK

    prepare_torchvision()
    from torchvision import transforms

    checkpoint = load_checkpoint(find_checkpoint())
    model, preprocess = checkpoint.model, checkpoint.preprocess
    transform = transforms.Compose(
        [
            transforms.Resize((preprocess.size, preprocess.size)),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )

    @torch.inference_mode()
    def run() -> list[str]:
        captions = []
        for start in range(0, len(paths), BATCH):
            pictures = [transform(Image.open(path).convert("RGB")) for path in paths[start : start + BATCH]]
            state = model.decoder.init_state(model.encoder(torch.stack(pictures)))
            tokens, ended = torch.full((len(pictures),), START), torch.zeros(len(pictures), dtype=torch.bool)
            written = []
            for _ in range(20):
                logits, state = model.decoder.step(tokens, state)
                logprobs = logits.log_softmax(-1)
                logprobs[:, [PAD, START, UNK]] = -torch.inf
                tokens = logprobs.argmax(-1)
                written.append(tokens.masked_fill(ended, END))
                ended |= tokens == END
                if ended.all():
                    break
            captions += [checkpoint.vocabulary.text(ids) for ids in torch.stack(written, 1).tolist()]
        return captions

    return run


def ours(paths: list[str], precision: str = "auto", beam: int = 1) -> Callable[[], list[str]]:
    """Prepare captioner: `captioner.load().caption_files`."""
    import captioner

    model, options = captioner.load(precision=precision), captioner.DecodeOptions(beam_size=beam)
    return lambda: [str(result.caption) for result in model.caption_files(paths, options)]


def reference(paths: list[str]) -> Callable[[], list[str]]:
    """Prepare the unchanged network in float32, with captioner's rules of decoding, to compare captions with."""
    import captioner
    from captioner.inference.torch_engine import PictureEncoder, captioner_of
    from captioner.network.checkpoint import load_checkpoint
    from captioner.network.header import find_checkpoint

    checkpoint = load_checkpoint(find_checkpoint())
    encoder = PictureEncoder(checkpoint.model.encoder, checkpoint.preprocess)
    encoder.network = checkpoint.model.encoder  # type: ignore[assignment]  # computes the same
    model = captioner_of(checkpoint, encoder)
    options = captioner.DecodeOptions("greedy")
    return lambda: [caption.text for caption in model.caption_batch(paths, options)]


def bare(paths: list[str], workers: bool) -> Callable[[], list[str]]:
    """Prepare the encoder alone, in the faster precision, on random tensors.

    With `workers`, each thread takes pictures of its own; otherwise all threads work on the same ones.
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from captioner.inference.torch_engine import load_engine
    from captioner.network.header import find_checkpoint

    engine = load_engine(find_checkpoint(), "cpu", "auto")
    size = engine.about.preprocess.size
    pixels = torch.rand(TOGETHER, 3, size, size).contiguous(memory_format=torch.channels_last).to(engine.encoder.dtype)
    rounds = range(-(-len(paths) // TOGETHER))

    @torch.inference_mode()
    def encode(_: int) -> None:
        engine.encoder.network(pixels)

    def run() -> list[str]:
        if not workers:
            for index in rounds:
                encode(index)
            return []
        with ThreadPoolExecutor(engine.workers, initializer=engine.work_alone) as pool:
            list(pool.map(encode, rounds))
        return []

    return run


def products(paths: list[str]) -> Callable[[], list[str]]:
    """Prepare large matrix products, in the faster precision, with as much arithmetic as the encoder needs.

    This is what the processor promises: no network of small layers comes near it.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from captioner.network.checkpoint import load_checkpoint
    from captioner.network.encoder import computing_type
    from captioner.network.header import find_checkpoint

    checkpoint, side = load_checkpoint(find_checkpoint()), 2048
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        checkpoint.model.encoder(torch.zeros(1, 3, checkpoint.preprocess.size, checkpoint.preprocess.size))
    rounds = round(counter.get_total_flops() * len(paths) / (2 * side**3))
    left, right = torch.randn(2, side, side).to(computing_type("auto", "cpu"))

    def run() -> list[str]:
        for _ in range(rounds):
            left @ right
        return []

    return run


def one_eager(paths: list[str]) -> Callable[[], list[str]]:
    """Prepare the unchanged encoder on one random picture at a time."""
    import torch

    from captioner.network.checkpoint import load_checkpoint
    from captioner.network.header import find_checkpoint

    checkpoint = load_checkpoint(find_checkpoint())
    encoder, size = checkpoint.model.encoder, checkpoint.preprocess.size
    pixels = torch.randn(1, 3, size, size)

    @torch.inference_mode()
    def run() -> list[str]:
        for _ in paths:
            encoder(pixels)
        return []

    return run


def one_ours(paths: list[str]) -> Callable[[], list[str]]:
    """Prepare `Captioner.caption` on one picture at a time, greedily."""
    import captioner

    model, options = captioner.load(), captioner.DecodeOptions("greedy")
    return lambda: [model.caption(path, options).text for path in paths]


CONTESTANTS: dict[str, Callable[[list[str]], Callable[[], list[str]]]] = {
    "plain": plain_loop,
    "greedy": ours,
    "reference": reference,
    "float32": lambda paths: ours(paths, "float32"),
    "beam 3": lambda paths: ours(paths, beam=3),
    "beam 5": lambda paths: ours(paths, beam=5),
    "bare": lambda paths: bare(paths, workers=False),
    "bare, one batch per thread": lambda paths: bare(paths, workers=True),
    "products": products,
    "one eager": one_eager,
    "one ours": one_ours,
}


def contest(name: str, paths: list[str]) -> None:
    """Run a contestant in its own process. Each round answers with its seconds and captions."""
    run = CONTESTANTS[name](paths)
    run()

    def one_round() -> tuple[float, list[str]]:
        started = time.perf_counter()
        captions = run()
        return time.perf_counter() - started, captions

    answer_rounds(one_round)


def rounds_of(names: list[str], paths: list[str], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Let contestants take turns. Returns the seconds of each round, and the captions of each contestant."""
    commands = {name: [__file__, "--contestant", name] for name in names}
    answers = take_turns(commands, rounds, hello=json.dumps(paths))
    seconds = {name: [value for value, _ in values] for name, values in answers.items()}
    return seconds, {name: values[-1][1] for name, values in answers.items()}


def process_seconds(*arguments: str) -> float:
    """Run a Python process. Returns its wall time from start to exit."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def peak_memory(paths: list[str], number: int) -> tuple[float, float]:
    """Caption `number` pictures in a process of its own. Returns pictures per second and peak memory in MB."""
    code = (
        "import sys, json, time, resource, itertools, captioner\n"
        "paths, number = json.load(sys.stdin)\n"
        "model, options = captioner.load(), captioner.DecodeOptions('greedy')\n"
        "started = time.perf_counter()\n"
        "for _ in model.caption_files(itertools.islice(itertools.cycle(paths), number), options): pass\n"
        "seconds = time.perf_counter() - started\n"
        "print(number / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps([paths, number]), check=True, capture_output=True, text=True
    )
    speed, memory = map(float, done.stdout.split())
    return speed, memory


def main() -> None:
    """Run one contestant where asked to, else measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=Path, help="folder of small JPEGs to use instead of generated ones")
    parser.add_argument("--pictures", type=int, default=256, help="pictures per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, help="rows of the table to measure")
    parser.add_argument("--largest", type=int, default=10_000, help="pictures in the largest run for the memory row")
    parser.add_argument("--json", type=Path, help="also write the ratios to this file")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        contest(args.contestant, json.loads(sys.stdin.readline()))
        return
    with tempfile.TemporaryDirectory() as folder:
        table(args, Path(folder))


def table(args: argparse.Namespace, folder: Path) -> None:
    """Measure the requested rows and print each as soon as it is done."""
    import torch

    make_pictures(folder, 0 if args.images else args.pictures, 64 if "photos" in args.only else 0)
    found = [str(path) for path in sorted((args.images or folder / "small").iterdir())]
    small = random.Random(0).sample(found, min(args.pictures, len(found)))
    large = [str(path) for path in sorted((folder / "large").iterdir())]
    print(f"{platform.machine()}, {os.cpu_count()} processors, torch {torch.__version__}, {args.rounds} rounds")
    print("| what is measured | compared with | required | result | pictures/s |\n|---|---|---:|---:|---:|")
    ratios: dict[str, float] = {}

    def row(key: str, what: str, against: str, bar: str, value: float, note: str = "") -> None:
        ratios[key] = value
        print(f"| {what} | {against} | {bar} | {value:.2f} | {note} |", flush=True)

    def speed(seconds: list[float], paths: list[str]) -> str:
        return f"{len(paths) / statistics.median(seconds):.0f}"

    if "folder" in args.only:
        times, _ = rounds_of(["plain", "greedy"], small, args.rounds)
        note = f"{speed(times['greedy'], small)} to {speed(times['plain'], small)}"
        row(
            "folder",
            "folder of small JPEGs, greedy",
            "plain loop",
            "6 x",
            paired(times["plain"], times["greedy"]),
            note,
        )
    if "bare" in args.only:
        kinds = ["bare", "bare, one batch per thread"]
        times, _ = rounds_of(["greedy", *kinds], small, args.rounds)
        best = min(kinds, key=lambda kind: statistics.median(times[kind]))
        note = f"{speed(times['greedy'], small)} to {speed(times[best], small)}"
        row("bare", "the same folder", f"encoder alone ({best})", "0.8", paired(times[best], times["greedy"]), note)
    if "products" in args.only:
        times, _ = rounds_of(["bare, one batch per thread", "products"], small, args.rounds)
        note = f"{speed(times['bare, one batch per thread'], small)} to {speed(times['products'], small)}"
        ratio = paired(times["products"], times["bare, one batch per thread"])
        row("products", "encoder alone", "as much arithmetic in large matrix products", "0.5", ratio, note)
    if "photos" in args.only:
        times, _ = rounds_of(["plain", "greedy"], large, args.rounds)
        note = f"{speed(times['greedy'], large)} to {speed(times['plain'], large)}"
        row("photos", "12-megapixel photos, greedy", "plain loop", "6 x", paired(times["plain"], times["greedy"]), note)
    if "beams" in args.only:
        times, _ = rounds_of(["greedy", "beam 3", "beam 5"], small, args.rounds)
        for name, bar in (("beam 3", "at most 1.3"), ("beam 5", "at most 1.6")):
            row(name, name, "greedy, whole run", bar, paired(times[name], times["greedy"]), speed(times[name], small))
    if "one" in args.only:
        times, _ = rounds_of(["one ours", "one eager"], small[:64], args.rounds)
        note = speed(times["one ours"], small[:64])
        ratio = paired(times["one ours"], times["one eager"])
        row("one", "one picture, model loaded", "eager encoder, batch 1", "at most 0.9", ratio, note)
    if "cold" in args.only:
        pairs = [
            (process_seconds("-m", "captioner", "caption", small[0]), process_seconds("-c", IMPORTS))
            for _ in range(args.rounds)
        ]
        ratio = statistics.median(a / b for a, b in pairs)
        row("cold", "`captioner caption one.jpg`, cold start", "importing torch, torchvision", "at most 1", ratio)
    if "help" in args.only:
        more = statistics.median(
            process_seconds("-m", "captioner", "--help") - process_seconds("-c", "pass") for _ in range(args.rounds)
        )
        row("help", "`captioner --help`", "`python -c pass`", "at most 0.15 s more", more)
    if "same" in args.only:
        _, captions = rounds_of(["reference", "float32", "greedy"], small, 1)
        for name, bar in (("float32", "0.98"), ("greedy", "")):
            same = sum(a == b for a, b in zip(captions[name], captions["reference"], strict=True)) / len(small)
            what = "float32" if name == "float32" else "default precision"
            row(f"same, {name}", f"identical captions, {what}", "eager network, float32", bar, same)
    if "memory" in args.only:
        sizes = [size for size in (100, 1000, 10_000, 100_000) if size <= args.largest]
        costs = {size: peak_memory(small, size) for size in sizes}
        if 1000 in costs and 10_000 in costs:
            row("memory", "peak memory, 10,000 pictures", "1,000", "at most 1.05", costs[10_000][1] / costs[1000][1])
        print("\n| pictures | pictures/s | peak MB |\n|---:|---:|---:|")
        for size, (per_second, memory) in costs.items():
            print(f"| {size:,} | {per_second:.0f} | {memory:.0f} |")
    if args.json:
        args.json.write_text(json.dumps(ratios))


if __name__ == "__main__":
    main()
