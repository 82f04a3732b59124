"""Do two checkouts write the same bytes? Run this after a change that should not alter any caption.

    python benchmarks/same.py --before ../captioner-before --images flickr8k/images

Both checkouts caption the same pictures in float32: in every format of output, by every way of decoding, and with both
shipped checkpoints. Both also kill a captioning run and a training run and resume them. The script compares all that
they write byte for byte, together with the headers and tensors of the shipped checkpoints.
The exit status is 1 when anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

AFTER = Path(__file__).resolve().parent.parent
FORMATS = {"text": "txt", "jsonl": "jsonl", "csv": "csv", "coco": "json", "html": "html"}
DECODING = {
    "beam of 5, all hypotheses": ["--beam-size", "5", "--num-captions", "5", "--no-repeat-ngram", "2"],
    "greedy": ["--strategy", "greedy"],
    "sampled": ["--strategy", "sample", "--num-captions", "3", "--seed", "7", "--top-p", "0.9"],
    "with a prompt": ["--prompt", "a dog"],
    "in Chinese": ["--checkpoint", "flickr8k-zh"],
}
SMALL = (
    *("--epochs", "6", "--finetune-epochs", "2", "--scst-epochs", "0", "--image-size", "64", "--hidden-size", "32"),
    *("--embedding-size", "16", "--minimum-count", "1", "--batch-size", "32", "--patience", "1"),
)


class Checkout:
    """A checkout of captioner, and a folder for what it writes."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(root),
            "CAPTIONER_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        """A command of this checkout, running in its folder. Its stderr goes to a log there."""
        command = [sys.executable, "-m", "captioner", *map(str, arguments)]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=self._environment, stdout=log, stderr=log)

    def run(self, *arguments: object) -> None:
        """The same, to its end. Raises RuntimeError when the command fails."""
        if self.start(*arguments).wait():
            log = (self.folder / "log").read_text(errors="replace")
            raise RuntimeError(f"{self.root}: captioner {' '.join(map(str, arguments))}: {log[-2000:]}")

    def kill_and_resume(self, ready: Callable[[], bool], *arguments: object) -> None:
        """Kill a command as soon as `ready()` is true, then run it to its end with --resume."""
        process = self.start(*arguments)
        while process.poll() is None and not ready():
            time.sleep(0.01)
        if process.poll() is not None:
            raise RuntimeError(f"{self.root}: the command ended before it could be killed")
        process.kill()
        process.wait()
        self.run(*arguments, "--resume")

    def caption(self, pictures: list[Path]) -> None:
        """Caption the pictures in every format and by every way of decoding."""
        copies = self.folder / "pictures"
        copies.mkdir()
        for number, picture in enumerate(pictures):
            # COCO's format asks for a number in the name; csv and HTML must quote what stands before it.
            (copies / f'it\'s "{picture.stem[:5]}" & _{number}{picture.suffix}').symlink_to(picture.resolve())
        exact = ("--precision", "float32", "--quiet")
        for format, suffix in FORMATS.items():
            self.run("caption", "pictures", "-f", format, "-o", f"captions.{suffix}", *exact)
        self.run("caption", "pictures", "-f", "sidecar", *exact)
        for name, options in DECODING.items():
            self.run("caption", "pictures", "-f", "jsonl", "-o", f"{name}.jsonl", *options, *exact)
        journal = self.folder / "killed.jsonl.journal"
        killed = ("caption", "pictures", "-f", "jsonl", "-o", "killed.jsonl", *exact)
        # The first line of the journal holds the settings; more means that a batch is done.
        self.kill_and_resume(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 1, *killed)
        for copy in copies.iterdir():
            if copy.is_symlink():
                copy.unlink()

    def train(self) -> None:
        """Train a small captioner on generated shapes in one go, and another with a kill in between."""
        self.run("data", "make-shapes", "shapes", "--pictures", 90)
        data = ("--captions", "shapes/captions.token.txt", "--images", "shapes/images")
        lists = ("--train-list", "shapes/train.txt", "--val-list", "shapes/val.txt")
        whole, killed = (("train", *data, *lists, *SMALL, "--output", run) for run in ("whole", "killed"))
        self.run(*whole)
        self.kill_and_resume((self.folder / "killed" / "metrics.jsonl").exists, *killed)
        for run in ("whole", "killed"):
            (self.folder / f"tensors of the {run} run").write_bytes(tensors(self.folder / run / "best.safetensors"))

    def written(self) -> dict[str, str]:
        """The SHA-256 of every file that counts, by its name."""
        files = [path for path in self.folder.iterdir() if path.is_file() and path.name not in ("log",)]
        files += (self.folder / "pictures").glob("*.txt")
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        for path in (self.root / "checkpoints").glob("*.safetensors"):
            content = path.read_bytes()
            found[f"header of {path.name}"] = hashlib.sha256(content[: len(content) - len(tensors(path))]).hexdigest()
            found[f"tensors of {path.name}"] = hashlib.sha256(tensors(path)).hexdigest()
        return found


def tensors(path: Path) -> bytes:
    """The part of a safetensors file after its header."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--before", type=Path, required=True, metavar="DIR", help="the other checkout")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="a folder of photographs (JPEG)")
    parser.add_argument("--pictures", type=int, default=300, metavar="N", help="how many of them to caption [300]")
    parser.add_argument("--without-training", action="store_true", help="compare captions and checkpoints only")
    args = parser.parse_args()
    pictures = sorted(args.images.glob("*.jpg"))
    pictures = pictures[:: max(1, len(pictures) // args.pictures)][: args.pictures]
    written = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, root in enumerate((args.before.resolve(), AFTER)):
            # Folders with names of the same length, in which the files have the same relative paths.
            folder = Path(temporary) / str(number)
            folder.mkdir()
            checkout = Checkout(root, folder)
            checkout.caption(pictures)
            if not args.without_training:
                checkout.train()
            written.append(checkout.written())
    before, after = written
    different = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    print(json.dumps({"pictures": len(pictures), "files": len(after), "different": different}, indent=2))
    runs = {after.get(f"tensors of the {run} run") for run in ("whole", "killed")}
    if len(runs) > 1:
        print("the resumed training run ended with other bytes than the one that was never killed")
    return 1 if different or len(runs) > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
