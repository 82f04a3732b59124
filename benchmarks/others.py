"""Compare captioner's speed with that of the captioners people use instead: BLIP-base and ViT-GPT2 of transformers.

    pip install "captioner[compare]"
    python benchmarks/others.py [--images DIR] [--rounds 3]

Only speed and size are compared, so the other captioners have random weights. They are built from their configurations
with the published sizes and written as safetensors. Every contestant's process then reads them, as a user's program
reads a downloaded model. No network is used.

All contestants caption JPEG files greedily. The others work in batches of 8, write captions of 12 tokens, and use the
image processor that comes with the model. captioner uses `caption_files` with its defaults, so its captions end where
they end.

In every round each contestant is a new process. The figures are medians over the rounds. The ratios are between
processes that ran one after the other, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from speed import make_pictures

BATCH, TOKENS = 8, 12
PICTURES = {"captioner": 256}  # per round; the others take two batches
BARS = {"BLIP-base": 100, "ViT-GPT2": 40}  # how many times as fast captioner has to be
CONTESTANTS = ("captioner", *BARS, *(f"{name}, bfloat16" for name in BARS))


def blip_base(folder: Path) -> None:
    """Write Salesforce/blip-image-captioning-base: ViT-B/16 at 384 pixels, a text decoder of 12 layers."""
    import transformers

    # The default initialisation makes the vision part's weights almost zero, unlike any trained weights.
    vision, text = {"image_size": 384, "initializer_range": 0.02}, {"num_attention_heads": 12}
    config = transformers.BlipConfig(vision_config=vision, text_config=text)
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    transformers.BlipImageProcessor(size={"height": 384, "width": 384}).save_pretrained(folder)


def vit_gpt2(folder: Path) -> None:
    """Write nlpconnect/vit-gpt2-image-captioning: ViT-B/16 at 224 pixels, GPT-2 small with cross-attention."""
    import transformers

    text = transformers.GPT2Config(is_decoder=True, add_cross_attention=True)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(transformers.ViTConfig(), text)
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = text.eos_token_id
    transformers.VisionEncoderDecoderModel(config).save_pretrained(folder)
    transformers.ViTImageProcessor().save_pretrained(folder)


def theirs(name: str, folder: Path) -> Callable[[list[str]], None]:
    """Load a model of transformers. Returns a function that takes JPEG files to token ids."""
    from captioner.network.torchvision_compat import prepare_torchvision

    prepare_torchvision()  # transformers imports torchvision, which fails with some builds of torch
    import torch
    import transformers
    from PIL import Image

    kind, _, bfloat16 = name.partition(", ")
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    network, reader = (
        (transformers.BlipForConditionalGeneration, transformers.BlipImageProcessor)
        if kind == "BLIP-base"
        else (transformers.VisionEncoderDecoderModel, transformers.ViTImageProcessor)
    )
    model = network.from_pretrained(folder / kind, dtype=dtype).eval()
    processor = reader.from_pretrained(folder / kind)

    @torch.inference_mode()
    def run(paths: list[str]) -> None:
        for start in range(0, len(paths), BATCH):
            pictures = [Image.open(path).convert("RGB") for path in paths[start : start + BATCH]]
            pixels = processor(pictures, return_tensors="pt")["pixel_values"].to(dtype)
            model.generate(pixel_values=pixels, do_sample=False, min_new_tokens=TOKENS, max_new_tokens=TOKENS)

    return run


def ours() -> Callable[[list[str]], None]:
    """Load captioner. Returns a function that captions JPEG files with `caption_files`."""
    import captioner

    model, options = captioner.load(), captioner.DecodeOptions("greedy")

    def run(paths: list[str]) -> None:
        assert all(result.caption for result in model.caption_files(paths, options))

    return run


def contest(name: str, folder: Path, paths: list[str], started: float) -> list[float]:
    """Run a contestant. Returns seconds from process start to first caption, pictures per second, and peak MB."""
    run = ours() if name == "captioner" else theirs(name, folder)
    run(paths[:1])
    first = time.time() - started
    run(paths[: PICTURES.get(name, BATCH)])  # warm up
    paths = paths[: PICTURES.get(name, 2 * BATCH)]
    begun = time.perf_counter()
    run(paths)
    per_second = len(paths) / (time.perf_counter() - begun)
    # getrusage's figure would not do: it begins at what the parent process took to build the models.
    [peak] = re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return [first, per_second, int(peak) / 1024]


def main() -> None:
    """Run one contestant where asked to, else all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=Path, help="folder of small JPEGs to use instead of generated ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestant", nargs=3, metavar=("NAME", "FOLDER", "STARTED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    # Use no network, and print no warnings about random weights.
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error")
    if args.contestant:
        name, folder, started = args.contestant
        print(json.dumps(contest(name, Path(folder), json.load(sys.stdin), float(started))))
        return
    with tempfile.TemporaryDirectory() as folder:
        table(args, Path(folder))


def table(args: argparse.Namespace, folder: Path) -> None:
    """Run the contestants in turn and print the table."""
    import torch
    import transformers

    from captioner.network.header import find_checkpoint
    from captioner.network.torchvision_compat import prepare_torchvision

    prepare_torchvision()
    make_pictures(folder, 0 if args.images else max(PICTURES.values()), 0)
    paths = json.dumps([str(path) for path in sorted((args.images or folder / "small").iterdir())])
    blip_base(folder / "BLIP-base")
    vit_gpt2(folder / "ViT-GPT2")
    measured: dict[str, list[list[float]]] = {name: [] for name in CONTESTANTS}
    for _ in range(args.rounds):
        for name in CONTESTANTS:
            command = [sys.executable, __file__, "--contestant", name, str(folder), str(time.time())]
            done = subprocess.run(command, input=paths, stdout=subprocess.PIPE, check=True, text=True)
            measured[name].append(json.loads(done.stdout))
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{platform.machine()}, {os.cpu_count()} processors, {versions}, {args.rounds} rounds\n")
    print("| | pictures/s | captioner is faster by | required | seconds to the first caption | peak MB | weights, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, rounds in measured.items():
        first, per_second, memory = (statistics.median(values) for values in zip(*rounds, strict=True))
        ratio = statistics.median(own[1] / other[1] for own, other in zip(measured["captioner"], rounds, strict=True))
        weights = find_checkpoint() if name == "captioner" else folder / name.partition(",")[0] / "model.safetensors"
        bar = f"{BARS[name]} x" if name in BARS else ""
        size = weights.stat().st_size / 1e6
        print(f"| {name} | {per_second:.3g} | {ratio:.0f} x | {bar} | {first:.1f} | {memory:.0f} | {size:.0f} |")


if __name__ == "__main__":
    main()
