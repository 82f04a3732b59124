"""captioner models: the checkpoints that come with captioner."""

from __future__ import annotations

import argparse

ABOUT = {
    "help": "list the checkpoints that come with captioner",
    "description": "List the checkpoints that come with captioner, the default one first. "
    "--checkpoint takes their names.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has none."""


def run(args: argparse.Namespace) -> int:
    """Print one line for each checkpoint."""
    from captioner.network.header import models

    for model in models():
        labels = {"bleu_4": "BLEU-4", "cider": "CIDEr"}
        scores = ", ".join(f"{labels[name]} {model.scores[name]:.1f}" for name in labels if name in model.scores)
        print(
            f"{model.name:14} {model.language}, {model.size / 1e6:.0f} MB, {model.encoder}, {model.vocabulary_size:,} "
            f"{model.tokens}s{'; validation ' if scores else ''}{scores}  {model.path}"
        )
    return 0
