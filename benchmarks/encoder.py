"""Measure how fast the encoder runs, step by step from the plain network to the one captioner uses.

    python benchmarks/encoder.py [--encoder mobilenet_v2] [--batch-size 32] [--rounds 5]

Only speed is measured, so weights and pixels are random. Each variant runs in a process of its own, and the variants
take turns. The table shows the median over the rounds in pictures per second, and its ratio to the plain network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

# "folded" means that BatchNorm is folded into the convolutions; "kept memory" that freed memory stays with the process.
VARIANTS = (
    "plain",
    "channels last",
    "folded + channels last",
    "folded + channels last + kept memory",
    "folded + channels last + kept memory + bfloat16",
)


def measure(variant: str, encoder_name: str, batch_size: int) -> float:
    """Measure one variant in this process. Returns pictures per second."""
    import torch

    from captioner.machine import keep_freed_memory
    from captioner.network.encoder import Encoder, channels_last, fuse_for_inference, in_bfloat16

    if "kept memory" in variant:
        keep_freed_memory()
    encoder: torch.nn.Module = Encoder(encoder_name)
    images = torch.randn(batch_size, 3, 224, 224)
    if "channels last" in variant:
        images = images.contiguous(memory_format=torch.channels_last)
        encoder = fuse_for_inference(encoder) if "folded" in variant else channels_last(encoder)  # type: ignore[arg-type]  # still an Encoder
    if variant.endswith("bfloat16"):
        encoder, images = in_bfloat16(encoder), images.bfloat16()
    with torch.inference_mode():
        encoder(images)
        started, batches = time.perf_counter(), 0
        while time.perf_counter() - started < 3.0:
            encoder(images)
            batches += 1
        return batches * batch_size / (time.perf_counter() - started)


def main() -> None:
    """Measure all variants in turn and print the table."""
    parser = argparse.ArgumentParser(description="Measure how fast the encoder runs, step by step.")
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measure(args.variant, args.encoder, args.batch_size)))
        return
    speeds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(args.rounds):
        for variant in VARIANTS:
            command = [sys.executable, __file__, "--variant", variant, "--encoder", args.encoder]
            command += ["--batch-size", str(args.batch_size)]
            speeds[variant].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    plain = statistics.median(speeds["plain"])
    print(f"{args.encoder}, batch {args.batch_size}, {platform.machine()}, {os.cpu_count()} cores")
    for variant, values in speeds.items():
        median = statistics.median(values)
        print(f"{variant:50}{median:8.0f} pictures/s{median / plain:8.2f} x")


if __name__ == "__main__":
    main()
