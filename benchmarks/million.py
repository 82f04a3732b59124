"""Caption very many pictures in every format: start, memory, resume after a kill, and how fast rows are written.

    python benchmarks/million.py [--numbers 10000 1000000] [--formats csv ...] [--starts] [--flat] [--without-model]

The pictures are a few tiny JPEGs under many names (hard links), in folders of 1,000, or with `--flat` in one folder.
Their captions come from a stand-in that costs next to nothing; all else is the real thing, and the process holds torch
and the shipped checkpoint, unless `--without-model`. Each run is a process of its own:

- *whole*: a run without interruption;
- *killed*: one that kills itself when 90 % of the captions are in the journal;
- *resumed*: one that goes on from there, and has to end with the same bytes;
- *again*: the same command once more, which finds that nothing is left to do.

With `--starts`, only the way to the first caption is measured: in a run from the beginning (*started*) and in one that
goes on after a kill (*restarted*). To write into very many pictures takes hours.

Seconds are from the start of the process. CPU seconds stand beside them, for machines that are busy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioner.inference.captioner import Captioner
    from captioner.inference.results import FileResult

IN_FOLDER = 1000
LINKS = 50_000  # names of one file: ext4 allows 65,000
SUFFIXES = {"text": ".txt", "jsonl": ".jsonl", "csv": ".csv", "coco": ".json", "html": ".html"}
BESIDE = ("sidecar", "xmp", "embed")
WIDTHS = (8, 6, 10, 8, 9, 8, 9, 12)
RUNS = ("whole", "killed", "resumed", "again")
STARTS = ("started", "killed", "restarted")
WORDS = ("A brown dog", "is running", "through", "the shallow water", "near", "two children", "with a red ball")


class FirstCaption(Exception):
    """No other is wanted."""


def make_pictures(folder: Path, number: int, flat: bool = False) -> None:
    """Give a few tiny JPEGs so many names."""
    from PIL import Image

    folder.mkdir(parents=True)
    for place in range(number):
        parent = folder if flat else folder / f"part-{place // IN_FOLDER:05}"
        if place % LINKS == 0:
            source = folder.parent / f"source-{place // LINKS}.jpg"
            Image.new("RGB", (16, 12), (place // LINKS * 7 % 256, 90, 160)).save(source)
        if not flat and place % IN_FOLDER == 0:
            parent.mkdir()
        os.link(source, parent / f"picture_{place:012}.jpg")


def stand_in(stop_after: int, seen: dict[str, float]) -> Any:
    """A `caption_named` that reads no pictures.

    Before it gives a result after so many, it kills the process, or raises FirstCaption if it has given one.
    """
    from captioner.inference.parallel import in_batches
    from captioner.inference.results import Caption, FileResult

    captions = []
    for place in range(97):
        words = tuple(" ".join(WORDS[place % 3 :]).lower().split())
        probabilities = tuple(0.1 + (place * 13 + n * 7) % 89 / 100 + 1e-9 / 3 for n in range(len(words)))
        text = " ".join(words).capitalize()
        captions.append(Caption(text, words, probabilities, 0.71, -9.0 - place / 97, confidence=0.5, familiar=0.97))

    def caption_named(
        pictures: Iterable[tuple[str, Any]], options: Any, batch_size: int, *, prompt: str, store: Any
    ) -> Iterator[FileResult]:
        given = 0
        for batch in in_batches(pictures, batch_size):
            for name, _ in batch:
                if given == stop_after == 1:
                    raise FirstCaption
                if given == stop_after:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen["last"] = time.time()
                if not given:
                    seen["first"], seen["cpu"] = seen["last"], time.process_time()
                given += 1
                yield FileResult(name, captions[sum(name.encode()) % len(captions)])

    return caption_named


def model_of(with_weights: bool, stop_after: int, seen: dict[str, float]) -> Captioner:
    """The shipped captioner, or one without weights, with the stand-in for its work."""
    import captioner
    from captioner.network.header import find_checkpoint

    if with_weights:
        model = captioner.load()
    else:
        model = captioner.Captioner.__new__(captioner.Captioner)
        model.engine, model.precision, model.path = "torch", "float32", find_checkpoint(None)
        model.digest = lambda: "made up"  # type: ignore[method-assign]  # a stand-in, in this process only
    model.caption_named = stand_in(stop_after, seen)  # type: ignore[method-assign]  # a stand-in, in this process only
    return model


def one_run(
    run: str, folder: Path, output: Path | None, format: str, number: int, with_weights: bool
) -> dict[str, Any]:
    """Caption the folder in this process. Returns seconds, CPU seconds, bytes and numbers of pictures."""
    began = time.time() - time.process_time()  # what importing took so far
    seen: dict[str, float] = {}
    from captioner.bulk.progress import Summary
    from captioner.bulk.run import caption_files

    stop_after = {"killed": number * 9 // 10, "started": 1, "restarted": 1}.get(run, -1)
    summary = Summary(0, 0, 0, 0.0)
    with suppress(FirstCaption):
        summary = caption_files(
            folder,
            output,
            format=format,
            model=lambda: model_of(with_weights, stop_after, seen),
            recursive=True,
            resume=run in ("resumed", "restarted"),
            index=False,
        )
    first, last, ended = seen.get("first"), seen.get("last"), time.time()
    return {
        "start": first and first - began,
        "start_cpu": seen.get("cpu"),
        "captioning": first and last and last - first,
        "rendering": last and ended - last,
        "seconds": ended - began,
        "cpu": time.process_time(),
        "peak": peak_memory(),
        "captioned": summary.captioned,
        "skipped": summary.skipped,
        "kept": summary.kept,
    }


def peak_memory() -> int:
    """The most bytes that this process has held."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def written(folder: Path, output: Path | None) -> tuple[int, str]:
    """The bytes of what was written, and a digest of all of it."""
    files = sorted(folder.rglob("*")) if output is None else [output, *sorted(pages_of(output).glob("*"))]
    size, digest = 0, hashlib.sha256()
    for file in files:
        if file.is_file() and file.exists():
            digest.update(file.name.encode())
            with file.open("rb") as content:
                while block := content.read(1 << 20):
                    size += len(block)
                    digest.update(block)
    return size, digest.hexdigest()


def pages_of(output: Path) -> Path:
    """The folder of the other pages of a gallery."""
    return output.with_name(f"{output.name}-pages")


def measure(
    number: int, format: str, scratch: Path, flat: bool = False, with_weights: bool = True, starts: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """All runs of one format, or only `starts`. Raises RuntimeError when a resumed run does not end as a whole one."""
    output = scratch / f"captions{SUFFIXES[format]}" if format in SUFFIXES else None
    folder, expected = scratch / "pictures", ""
    for run in STARTS if starts else RUNS:
        if run == "again" and format in ("coco", "html"):
            continue  # which refuse to be written again
        if run in ("whole", "started", "killed") and (format in BESIDE or not folder.exists()):
            shutil.rmtree(folder, ignore_errors=True)
            make_pictures(folder, number, flat)
        if run == "killed" and output:
            output.unlink(missing_ok=True)
            output.with_name(f"{output.name}.journal").unlink(missing_ok=True)
            shutil.rmtree(pages_of(output), ignore_errors=True)
        arguments = [run, str(folder), str(output or ""), format, str(number), str(int(with_weights))]
        command = [sys.executable, __file__, "--one", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != (-signal.SIGKILL if run == "killed" else 0):
            raise RuntimeError(f"{format}, {run}: ended with {done.returncode}: {done.stderr}")
        if run != "killed":
            found = json.loads(done.stdout)
            found["bytes"], digest = (0, "") if starts else written(folder, output)
            yield run, found
            expected = expected or digest
            if digest != expected:
                raise RuntimeError(f"{format}, {run}: did not end with the same bytes")


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--formats", nargs="+", choices=[*SUFFIXES, *BESIDE], default=[*SUFFIXES, *BESIDE])
    parser.add_argument("--flat", action="store_true", help="all pictures in one folder")
    parser.add_argument("--without-model", action="store_true", help="neither torch nor a checkpoint")
    parser.add_argument("--starts", action="store_true", help="no more than the way to the first caption")
    parser.add_argument("--scratch", type=Path, help="a folder for what is made; deleted at the end")
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run, folder, output, format, number, weights = args.one
        place = Path(output) if output else None
        print(json.dumps(one_run(run, Path(folder), place, format, int(number), weights == "1")))
        return
    titles = ("start", "CPU", "captions", "render", "seconds", "CPU", "peak MB", "MB written")
    print(" " * 28 + "".join(f"{title:>{width}}" for title, width in zip(titles, WIDTHS, strict=True)))
    for number in args.numbers:
        for format in args.formats:
            with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
                options = args.flat, not args.without_model, args.starts
                for run, found in measure(number, format, Path(scratch), *options):
                    print(line_of(f"{format:8}{number:10,} {run:9}", found), flush=True)


def line_of(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    times = (found[key] for key in ("start", "start_cpu", "captioning", "rendering", "seconds", "cpu"))
    cells = ["" if value is None else f"{value:.1f}" for value in times]
    cells += [f"{found['peak'] / 1e6:.0f}", f"{found['bytes'] / 1e6:.1f}"]
    return name + "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))


if __name__ == "__main__":
    main()
