"""Count captions that depend on the number of threads, the batch size, or whether Python or the command is used.

    python benchmarks/determinism.py --images DIR [--split-list FILE] [--checkpoint FILE]

Each setting captions the pictures in a process of its own. The script counts the captions that differ from those of the
baseline: one thread, batches of 32, called from Python. For captions that differ, it also shows the difference of their
log-probabilities. Rounding can only swap captions whose log-probabilities are close.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

Captions = Mapping[str, tuple[str, float]]

# Each setting: torch's threads, the pictures per batch, and whether to call Python or the command.
FIRST = (1, 32, "Python")
OTHERS = [(2, 32, "Python"), (1, 32, "command"), (2, 32, "command"), (1, 8, "Python"), (1, 1, "Python")]
IN_PYTHON = """
import json, sys
import captioner
paths, batch, checkpoint = json.load(sys.stdin)
for row in captioner.load(checkpoint).caption_files(paths, batch_size=batch):
    if row.caption:
        print(json.dumps({"path": row.path, "caption": row.caption.text, "logprob": row.caption.logprob}))
"""


def captions(paths: list[str], threads: int, batch: int, way: str, checkpoint: str | None) -> Captions:
    """Caption the pictures in another process. Returns caption and log-probability by path."""
    if way == "Python":
        command = [sys.executable, "-c", IN_PYTHON]
        given = json.dumps([paths, batch, checkpoint])
    else:
        more = ["--checkpoint", checkpoint] if checkpoint else []
        command = [sys.executable, "-m", "captioner", "caption", "-", "--format", "jsonl", "--quiet", *more]
        command += ["--batch-size", str(batch)]
        given = "\n".join(paths)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=True)
    rows = map(json.loads, done.stdout.splitlines())
    return {row["path"]: (row["caption"], row["logprob"]) for row in rows}


def main() -> None:
    """Compare every setting with the first one and print the table."""
    parser = argparse.ArgumentParser(description="Count captions that depend on threads, batch size or way of calling.")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--split-list", type=Path)
    parser.add_argument("--checkpoint")
    args = parser.parse_args()
    from captioner.data.splits import read_split_list
    from captioner.pictures.find import find_pictures

    if args.split_list:
        paths = [str(args.images / name) for name in read_split_list(args.split_list)]
    else:
        paths = find_pictures([str(args.images)])
    first = captions(paths, *FIRST, args.checkpoint)
    print(f"| threads | batch size | called from | captions that differ, of {len(first)} | difference in logprob |")
    print("|---:|---:|---|---:|---|")
    for threads, batch, way in OTHERS:
        found = captions(paths, threads, batch, way, args.checkpoint)
        distances = [abs(found[path][1] - first[path][1]) for path in first if found[path][0] != first[path][0]]
        shown = f"{min(distances):.1g} to {max(distances):.1g}" if distances else ""
        print(f"| {threads} | {batch} | {way} | {len(distances)} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
