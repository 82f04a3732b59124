"""Measure how fast the encoder trains end to end, compared with plain ways of doing the same.

    python benchmarks/finetuning.py

A step is one forward and one backward pass through the encoder with random pictures. The contestants are:

- *plain fp32*: the network without changes.
- *channels last, bfloat16*: the same network under autocast.
- *captioner*: what `captioner train` runs. BatchNorm is folded into the convolutions, padding and activations are
  computed with them, depthwise convolutions have other gradients, and freed memory is kept.

Every contestant is a process of its own. They take turns, and each figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from turns import answer_rounds, paired, take_turns

from captioner.machine import keep_freed_memory
from captioner.network.convolutions import folded_for_training
from captioner.network.encoder import Encoder, channels_last, native_bfloat16

CONTESTANTS = ("captioner", "plain fp32", "channels last, bfloat16")


def contestant(name: str, encoder_name: str, batch_size: int, size: int) -> Callable[[], float]:
    """Prepare a contestant. Returns a function that runs one step and returns its seconds."""
    network: nn.Module = Encoder(encoder_name)
    pixels = torch.randn(batch_size, 3, size, size)
    bfloat16 = name != "plain fp32" and native_bfloat16("cpu")
    if name != "plain fp32":
        channels_last(network)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    if name == "captioner":
        keep_freed_memory()
        network = folded_for_training(network)  # type: ignore[arg-type]  # it is the Encoder created above

    def step() -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            features = network(pixels).float()
        features.sum().backward()
        return time.perf_counter() - started

    return step


def main() -> None:
    """Let the contestants take turns; print pictures per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoder", default="efficientnet_lite2")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=256, help="side of the pictures, in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        answer_rounds(contestant(args.contestant, args.encoder, args.batch_size, args.size))
        return
    commands = {name: [__file__, *sys.argv[1:], "--contestant", name] for name in CONTESTANTS}
    times = take_turns(commands, args.rounds)
    print(f"{args.encoder}, batch {args.batch_size}, {args.size} px, {torch.get_num_threads()} threads, ", end="")
    print(f"bfloat16: {native_bfloat16('cpu')}")
    print("| forward and backward | pictures/s | times slower |\n|---|---:|---:|")
    for name, values in times.items():
        speed = args.batch_size / statistics.median(values)
        print(f"| {name} | {speed:.0f} | {paired(values, times['captioner']):.1f} |")


if __name__ == "__main__":
    main()
