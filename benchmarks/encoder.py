"""Measure how fast the encoder runs, step by step from the plain network to the one captioner uses.

    python benchmarks/encoder.py [--encoder efficientnet_lite2] [--size 256] [--batch-size 32] [--rounds 5]

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

# "folded" means that BatchNorm is folded into the convolutions; "kept memory" that freed memory stays with the process;
# "fused" that padding, activations and sums are computed with the convolutions.
FOLDED = "folded + channels last + kept memory"
VARIANTS = (
    "plain",
    "plain + kept memory",
    "channels last + kept memory",
    FOLDED,
    f"{FOLDED} + bfloat16",
    f"{FOLDED} + bfloat16 + fused",
    f"{FOLDED} + bfloat16 + fused, 8 at a time",
)


def measure(variant: str, encoder_name: str, batch_size: int, size: int) -> float:
    """Measure one variant in this process. Returns pictures per second."""
    import torch

    from captioner.machine import keep_freed_memory
    from captioner.network.convolutions import folded_for_inference, fused_for_inference
    from captioner.network.encoder import Encoder, channels_last, in_bfloat16

    if "kept memory" in variant:
        keep_freed_memory()
    encoder = Encoder(encoder_name)
    network: torch.nn.Module = encoder
    images = torch.randn(batch_size, 3, size, size)
    if "channels last" in variant:
        images = images.contiguous(memory_format=torch.channels_last)
        network = channels_last(encoder)
    if "folded" in variant:
        folded = folded_for_inference(encoder)
        if "bfloat16" in variant:
            folded, images = in_bfloat16(folded), images.bfloat16()
        network = fused_for_inference(folded) if "fused" in variant else folded
    parts = images.split(8 if "8 at a time" in variant else batch_size)
    with torch.inference_mode():
        network(parts[0])
        started, batches = time.perf_counter(), 0
        while time.perf_counter() - started < 3.0:
            for part in parts:
                network(part)
            batches += 1
        return batches * batch_size / (time.perf_counter() - started)


def main() -> None:
    """Measure all variants in turn and print the table."""
    parser = argparse.ArgumentParser(description="Measure how fast the encoder runs, step by step.")
    parser.add_argument("--encoder", default="efficientnet_lite2")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=256, help="side of the pictures, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measure(args.variant, args.encoder, args.batch_size, args.size)))
        return
    speeds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(args.rounds):
        for variant in VARIANTS:
            command = [sys.executable, __file__, "--variant", variant, "--encoder", args.encoder]
            command += ["--batch-size", str(args.batch_size), "--size", str(args.size)]
            speeds[variant].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    plain = statistics.median(speeds["plain"])
    print(f"{args.encoder}, batch {args.batch_size}, {args.size} px, {platform.machine()}, {os.cpu_count()} cores")
    for variant, values in speeds.items():
        median = statistics.median(values)
        print(f"{variant:72}{median:8.0f} pictures/s{median / plain:8.2f} x")


if __name__ == "__main__":
    main()
