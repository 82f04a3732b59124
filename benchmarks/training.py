"""Measure how long an epoch of the decoder on cached features takes, compared with two plain ways of doing the same.

    python benchmarks/training.py

The contestants are:

- *captioner*: the stage as `captioner train` runs it.
- *plain loop*: the same network in float32 with torch's own GRU, dropout, cross-entropy, AdamW and allocator. Batches
  are random and padded to their longest caption. Weights are not averaged.
- *plain loop, encoding again*: the plain loop, which also encodes the picture of every caption again with torchvision's
  network, without changes.

Captions and features are random. The lengths of the captions are drawn like those of Flickr8k. Every contestant is a
process of its own. They take turns, and each figure is the median over the rounds.

The last line of the output says how much of a self-critical step goes into its rewards, which are the CIDEr-D of the
captions it drew.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from turns import answer_rounds, paired, take_turns

from captioner.machine import keep_freed_memory
from captioner.network.encoder import native_bfloat16
from captioner.network.kernels import GRU
from captioner.network.model import CaptionModel, ModelConfig
from captioner.network.preprocess import Preprocess
from captioner.options import CELLS
from captioner.training.captions import CaptionTokens, batches_by_length
from captioner.training.config import TrainConfig
from captioner.training.optimiser import Average, Optimiser
from captioner.training.ranks import Ranks
from captioner.training.stages import FrozenStage, SelfCriticalStage
from captioner.training.start import Material
from captioner.vocab import PAD, SPECIAL_TOKENS, Vocabulary

WORDS = 2917  # the vocabulary of Flickr8k's training captions: see benchmarks/README.md


def texts_of_pictures(captions: int, words: int = WORDS) -> list[list[str]]:
    """Make random captions, five per picture."""
    torch.manual_seed(0)
    # Log-normal, like the lengths of Flickr8k's captions: see benchmarks/README.md.
    lengths = torch.empty(captions).log_normal_(2.41, 0.34).round().clamp(2, 40).int().tolist()
    texts = [" ".join(f"w{index}" for index in torch.randint(words - 4, (length,)).tolist()) for length in lengths]
    return [texts[start : start + 5] for start in range(0, captions, 5)]


class RandomMaterial(Material):
    """Material whose features are random, and computed in no time."""

    def features(self) -> Tensor:
        """Random features (P, 2, F)."""
        return torch.randn(len(self.paths), 2, self.model.encoder.feature_size, dtype=torch.float16)


def material(config: TrainConfig, captions: int, words: int = WORDS) -> Material:
    """Make random captions and random features."""
    vocabulary = Vocabulary(SPECIAL_TOKENS + tuple(f"w{index}" for index in range(words - 4)))
    pictures = texts_of_pictures(captions, words)
    sizes = config.hidden_size, config.embedding_size
    network = ModelConfig(config.encoder, len(vocabulary), *sizes, config.dropout, config.cell, config.layers)
    model = CaptionModel.create(network)
    return RandomMaterial(
        config=config.for_set(captions, len(pictures)),
        model=model,
        vocabulary=vocabulary,
        preprocess=Preprocess(),
        paths=[""] * len(pictures),
        captions=CaptionTokens.of(pictures, vocabulary),
        sources=torch.zeros(len(pictures), dtype=torch.int64),
        mirror=torch.arange(len(vocabulary)),
        labels=torch.zeros(len(pictures), 0, dtype=torch.bool),
        ranks=Ranks(),
    )


def ours(material: Material, steps: int) -> Iterator[float]:
    """Run rounds of the stage as `captioner train` does. Yields seconds per epoch."""
    keep_freed_memory()
    stage = FrozenStage(material)
    stage.prepare()
    steps_in_all = stage.epochs * stage.steps
    optimiser = Optimiser(stage.weights, material.config.weight_decay, material.config.gradient_clip, steps_in_all)
    average = Average(optimiser.named, material.config.average * steps_in_all)
    batches = stage.batches(torch.Generator().manual_seed(0))
    material.model.train()
    while True:
        losses = stage.losses(batches[:steps], "benchmark")
        started = time.perf_counter()
        for loss in losses:
            optimiser.step(loss.total)
            average.update()
        yield (time.perf_counter() - started) / steps * stage.steps
        batches = batches[steps:] + batches[:steps]


def reward_share(material: Material, texts: list[list[str]], steps: int) -> float:
    """Return the share of the time of self-critical steps that the rewards take."""
    stage = SelfCriticalStage(material, texts)
    stage.prepare()
    optimiser = Optimiser(stage.weights, 0.02, 5.0, 1000)
    rewards, seconds = stage.rewards.of, 0.0

    def timed(*arguments: Any) -> torch.Tensor:
        nonlocal seconds
        begin = time.perf_counter()
        found = rewards(*arguments)
        seconds += time.perf_counter() - begin
        return found

    started = time.perf_counter()
    with patch.object(stage.rewards, "of", timed):
        for loss in stage.losses(stage.batches(torch.Generator().manual_seed(0))[:steps], "benchmark"):
            optimiser.step(loss.total)
    return seconds / (time.perf_counter() - started)


def plain(material: Material, steps: int, eager: bool) -> Iterator[float]:
    """Run rounds of the plain loop. Yields seconds per epoch."""
    decoder, captions, size = material.model.decoder, material.captions, material.config.batch_size
    for name in ("dropout", "feature_dropout"):
        setattr(decoder, name, nn.Dropout(getattr(decoder, name).share))  # use torch's own
    for layer in decoder.recurrent:
        if isinstance(layer.cell, GRU):
            layer.cell = nn.GRU(layer.cell.input_size, layer.cell.hidden_size, batch_first=True)
    adamw = torch.optim.AdamW(decoder.parameters(), lr=1e-3)
    features = material.features()[:, 0].float()
    pixels = torch.randn(size, 3, 224, 224)
    order = torch.randperm(len(captions))
    decoder.train()
    while True:
        started = time.perf_counter()
        for rows in order[: steps * size].split(size):
            inputs = features[captions.picture[rows].long()]
            if eager:
                with torch.no_grad():
                    inputs = material.model.encoder(pixels)
            tokens = captions.batch(rows)
            adamw.zero_grad()
            logits, targets = decoder(inputs, tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()
            smoothing = material.config.label_smoothing
            nn.functional.cross_entropy(logits, targets, ignore_index=PAD, label_smoothing=smoothing).backward()
            nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
            adamw.step()
        yield (time.perf_counter() - started) / steps * (len(captions) / size)
        order = order.roll(-steps * size)


CONTESTANTS: dict[str, Callable[[Material, int], Iterator[float]]] = {
    "captioner": ours,
    "plain loop": lambda data, steps: plain(data, steps, eager=False),
    "plain loop, encoding again": lambda data, steps: plain(data, max(1, steps // 10), eager=True),
}


def main() -> None:
    """Let the contestants take turns; print seconds per epoch and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--captions", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=20, help="steps per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cell", choices=CELLS, default=TrainConfig().cell)
    parser.add_argument("--batch-size", type=int, default=TrainConfig().batch_size)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    data = material(TrainConfig(cell=args.cell, batch_size=args.batch_size), args.captions)
    if args.contestant:
        rounds = CONTESTANTS[args.contestant](data, args.steps)
        answer_rounds(lambda: next(rounds))
        return
    commands = {name: [__file__, *sys.argv[1:], "--contestant", name] for name in CONTESTANTS}
    seconds = take_turns(commands, args.rounds)
    lengths = data.captions.lengths()
    batches = batches_by_length(lengths, data.config.batch_size, torch.Generator().manual_seed(0))
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    print(f"{args.captions} captions, {args.cell}, batch {args.batch_size}, ", end="")
    print(f"bfloat16: {native_bfloat16('cpu')}, ", end="")
    print(f"{torch.get_num_threads()} threads, padding {100 * (1 - int(lengths.sum()) / padded):.1f} %")
    print("| an epoch | seconds | times captioner |\n|---|---:|---:|")
    for name, values in seconds.items():
        print(f"| {name} | {statistics.median(values):.1f} | {paired(values, seconds['captioner']):.1f} |")
    keep_freed_memory()
    share = reward_share(data, texts_of_pictures(args.captions), args.steps)
    print(f"\nrewards take {100 * share:.0f} % of the time of a self-critical step")


if __name__ == "__main__":
    main()
