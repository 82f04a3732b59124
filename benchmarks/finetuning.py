"""How fast the encoder trains end to end, against the plain ways of doing the same.

    python benchmarks/finetuning.py

Forward and backward through the encoder with random pictures. *plain fp32*: torchvision's network as it comes;
*channels last, bfloat16*: the same under autocast; *captioner*: what `captioner train` runs, with BatchNorm folded into
the convolutions and another gradient for strided depthwise ones. Rounds of all variants follow each other, so that a
busy machine slows all of them; a figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from captioner.allocator import keep_freed_memory
from captioner.model import Encoder, channels_last
from captioner.precision import native_bfloat16
from captioner.training.folded import folded_for_training


def seconds(network: nn.Module, pixels: torch.Tensor, bfloat16: bool) -> float:
    """One step forward and backward."""
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        features = network(pixels).float()
    features.sum().backward()
    return time.perf_counter() - started


def main() -> None:
    """Print pictures a second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="side of the pictures in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    keep_freed_memory()
    native = native_bfloat16("cpu")
    plain = Encoder(args.encoder)
    fast = Encoder(args.encoder)
    channels_last(fast)
    pixels = torch.randn(args.batch_size, 3, args.size, args.size)
    by_channel = pixels.contiguous(memory_format=torch.channels_last)
    variants = {
        "captioner": (folded_for_training(fast), by_channel, native),
        "plain fp32": (plain, pixels, False),
        "channels last" + (", bfloat16" if native else ""): (fast, by_channel, native),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round in range(args.rounds + 1):
        for name, variant in variants.items():
            value = seconds(*variant)
            if round:  # the first one warms up
                times[name].append(value)
    base = statistics.median(times["captioner"])
    print(f"{args.encoder}, batch {args.batch_size}, {args.size} px, {torch.get_num_threads()} threads")
    print("| forward and backward | pictures/s | times slower |\n|---|---:|---:|")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| {name} | {args.batch_size / median:.0f} | {median / base:.1f} |")


if __name__ == "__main__":
    main()
