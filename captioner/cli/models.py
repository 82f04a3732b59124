"""captioner models: the checkpoints that come along."""

from __future__ import annotations

import argparse
from typing import Any

from captioner.cli.arguments import HelpFormatter


def add_parser(commands: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "models",
        help="list the checkpoints that come along",
        description="List the checkpoints that come along, the default one first: what --checkpoint takes by name.",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line a checkpoint."""
    from captioner.network.header import LANGUAGES, describe, shipped_checkpoints

    for name, path in shipped_checkpoints().items():
        content = describe(path)
        scores = content["provenance"].get("validation", {})
        shown = ", ".join(
            f"{label} {scores[key]:.1f}" for key, label in (("bleu_4", "BLEU-4"), ("cider", "CIDEr")) if key in scores
        )
        print(
            f"{name:14} {LANGUAGES.get(name, '')}, {path.stat().st_size / 1e6:.0f} MB, {content['model']['encoder']}, "
            f"{len(content['vocabulary']):,} {content.get('tokens', 'word')}s{f'; validation {shown}' if shown else ''}"
            f"  {path}"
        )
    return 0
