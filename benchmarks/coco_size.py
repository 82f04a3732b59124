"""Measure training at COCO's size on a generated stand-in: time, processor time and memory of every part, and curves.

    python benchmarks/coco_size.py --folder DIR

The stand-in has 118,000 pictures to learn from and 5,000 to validate on, with five captions each, in the layout of
COCO's captions_train2017.json. Names, lengths of captions and the number of words are like COCO's; pictures are JPEGs
of 32 pixels. Every measurement is made at a sixteenth, a quarter and the whole of that size, each in a process of its
own, through the command that users give. The table ends with the exponents of the two steps: 1 is linear.

The network that encodes pictures is left out. In its place stands a small fixed function of the pixels, so that
features depend on the picture and 118,000 of them take minutes. All else runs as always, the end-to-end stage with the
real network among it. The stages of a whole run are cut to a few steps each, which does not change what they hold in
memory.

What was made and measured stays in the folder. A measurement that is there already is not repeated: delete its line in
results.jsonl to repeat it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from turns import answer_rounds, paired, take_turns

TRAIN, VALIDATION, EACH = 118_000, 5_000, 5
# Captions to learn from, and words of the vocabulary, at the default minimum count.
SPEEDS = {
    "Flickr8k's size": (30_000, 2_917),
    "COCO's size": (590_000, 12_436),
    "COCO's size, Flickr8k's vocabulary": (590_000, 2_917),
    "Flickr8k's size, COCO's vocabulary": (30_000, 12_436),
}
SHARES = ("16", "4", "1")  # one part in so many
WORDS = 50_000  # that captions draw from; most of the rarest are never drawn
VALIDATED = 250  # pictures of a whole run, enough for confidence
SIDE = 32  # of pictures, in pixels
NAMES = Path(__file__).parent.parent / "captioner" / "training" / "imagenet_names.txt"

Result = dict[str, Any]


def numbers_of(size: str) -> tuple[int, int]:
    """How many pictures a set has to learn from, and to validate on."""
    return TRAIN // int(size), VALIDATION // int(size)


@cache
def words() -> dict[str, tuple[list[str], list[float]]]:
    """Nouns, verbs and adjectives with cumulative weights: the higher the rank of a word, the rarer it is."""
    syllables = [first + last for first in "bdfgklmnprstvz" for last in "aeiou"]
    made = [a + b for a in syllables for b in syllables] + [
        a + b + c for a in syllables for b in syllables for c in "nrs"
    ]
    made += [word + last for word in made for last in syllables[:4]]
    known = [line.split()[0] for line in NAMES.read_text(encoding="utf-8").splitlines()]
    every = list(dict.fromkeys(made))[:WORDS]
    parts = {
        "verb": every[::8],
        "adjective": every[1::8],
        "noun": known + [w for i, w in enumerate(every) if i % 8 > 1],
    }
    return {
        kind: (those, list(accumulate((rank + 55) ** -2.0 for rank in range(len(those)))))
        for kind, those in parts.items()
    }


class Scene:
    """What a picture shows: some words, of which its captions draw half of theirs, and colours that belong to them."""

    def __init__(self, number: int) -> None:
        self._rng = random.Random(number)
        self._nouns = self._draw("noun", 4)
        self._verb = self._draw("verb", 1)[0]

    def _draw(self, kind: str, number: int) -> list[str]:
        those, weights = words()[kind]
        return self._rng.choices(those, cum_weights=weights, k=number)

    def _thing(self) -> list[str]:
        rng = self._rng
        adjective = self._draw("adjective", 1) if rng.random() < 0.4 else []
        noun = rng.choice(self._nouns) if rng.random() < 0.6 else self._draw("noun", 1)[0]
        return [rng.choice(("a", "a", "a", "the", "some", "two")), *adjective, noun]

    def caption(self) -> str:
        """A sentence."""
        rng = self._rng
        said = [*self._thing(), self._verb if rng.random() < 0.6 else self._draw("verb", 1)[0]]
        for _ in range(rng.choices((1, 2, 3, 4, 8), (25, 50, 20, 4, 1))[0]):
            said += [
                rng.choice(("on", "in", "with", "of", "near", "next to", "and", "at", "on top of")),
                *self._thing(),
            ]
        return " ".join(said).capitalize() + "."

    def picture(self) -> Image.Image:
        """Colours of the first two nouns, and noise, by which no two pictures are the same."""
        tint = np.concatenate(
            [np.random.default_rng(list(noun.encode())).integers(40, 216, 96) for noun in self._nouns[:2]]
        )
        noise = np.random.default_rng(self._rng.getrandbits(32)).integers(-40, 40, 192)
        pixels = (tint + noise).clip(0, 255).astype(np.uint8).reshape(8, 8, 3)
        return Image.fromarray(pixels).resize((SIDE, SIDE))


def make_set(folder: Path, size: str) -> Path:
    """Make the pictures, captions and lists of a set, unless they are there."""
    made = folder / size
    if (made / "val.txt").exists():
        return made
    (made / "train2017").mkdir(parents=True, exist_ok=True)
    learn, validate = numbers_of(size)
    images, annotations, names = [], [], []
    for place in range(learn + validate):
        number = 9 + 4 * place + place % 3
        name = f"{number:012}.jpg"
        scene = Scene(number)
        scene.picture().save(made / "train2017" / name, quality=90)
        names.append(name)
        about = {"height": SIDE, "width": SIDE, "date_captured": "2013-11-14 17:02:52", "license": 1 + place % 8}
        urls = {
            "coco_url": f"http://images.example/train2017/{name}",
            "flickr_url": f"http://farm.example/{number}_z.jpg",
        }
        images.append({"file_name": name, "id": number, **about, **urls})
        annotations += [{"image_id": number, "id": 5 * place + i, "caption": scene.caption()} for i in range(EACH)]
    random.Random(0).shuffle(annotations)  # COCO's are in no order, either
    random.Random(1).shuffle(names)
    info = {"description": "A stand-in for COCO", "version": "1.0", "year": 2017}
    licenses = [{"id": number, "name": "none", "url": ""} for number in range(1, 9)]
    content = {"info": info, "licenses": licenses, "images": images, "annotations": annotations}
    (made / "captions_train2017.json").write_text(json.dumps(content), encoding="utf-8")
    (made / "train.txt").write_text("\n".join(names[:learn]) + "\n", encoding="utf-8")
    (made / "val.txt").write_text("\n".join(names[learn:]) + "\n", encoding="utf-8")
    return made


def data_arguments(made: Path) -> list[str]:
    """The arguments that say where a set is."""
    lists = ["--train-list", str(made / "train.txt"), "--val-list", str(made / "val.txt")]
    return ["--captions", str(made / "captions_train2017.json"), "--images", str(made / "train2017"), *lists]


def stand_in_encoder() -> None:
    """Let a fixed function of the pixels, by squares of 8 by 8, take the place of the network that encodes pictures."""
    import torch

    from captioner.inference.torch_engine import PictureEncoder

    mixing = torch.randn(192, 1280, generator=torch.Generator().manual_seed(0)) / 192**0.5

    def encode(self: PictureEncoder, pixels: torch.Tensor) -> torch.Tensor:
        step = pixels.shape[-1] // 8
        squares = pixels[..., step // 2 :: step, step // 2 :: step].float() / 64 - 2
        features: torch.Tensor = (squares.flatten(1) @ mixing).relu()
        return features

    PictureEncoder.encode_pixels = encode  # type: ignore[method-assign]  # a stand-in, in this process only


class Clock:
    """Time, processor time and memory of parts of this process, by name."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}
        self._began = time.time() - _seconds_since_start()

    def since_start(self) -> tuple[float, float]:
        """Seconds and processor seconds since the process started."""
        return time.time() - self._began, time.process_time()

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Time each call of a function from now on."""
        plain = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            began, used = time.perf_counter(), time.process_time()
            try:
                return plain(*arguments, **named)
            finally:
                total = self.parts.setdefault(part, [0, 0.0, 0.0, 0.0])
                spent = time.perf_counter() - began
                total[:] = total[0] + 1, total[1] + spent, total[2] + time.process_time() - used, max(total[3], spent)

        setattr(owner, name, timed)

    def result(self, **more: Any) -> Result:
        """What was measured: seconds, cpu (processor seconds), peak_mb; parts by name: calls, seconds, cpu, longest."""
        seconds, cpu = self.since_start()
        parts = {name: [calls, *(round(v, 3) for v in values)] for name, (calls, *values) in self.parts.items()}
        return {"seconds": seconds, "cpu": cpu, "peak_mb": peak_mb(), "parts": parts, **more}


def _seconds_since_start() -> float:
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def peak_mb() -> float:
    """The most memory that this process has held. A child's own: getrusage would give that of its parent."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def command(*arguments: str) -> int:
    """Run a command of captioner in this process, with what it prints on stderr."""
    from captioner.cli.main import main

    with contextlib.redirect_stdout(sys.stderr):
        return main(list(arguments))


def check(made: Path, steps: int) -> Result:
    """`captioner data check`."""
    from captioner.data import survey

    clock = Clock()
    clock.watch(survey, "_unreadable", "reading pictures")
    status = command("data", "check", *data_arguments(made))
    return clock.result(status=status)


def fill(made: Path, steps: int) -> Result:
    """Fill the cache of features, as the start of a run does."""
    stand_in_encoder()
    clock = Clock()
    _stop_at_step(1, lambda: _answer(clock.result()))
    output = str(_emptied(made / "filling"))
    command("train", *data_arguments(made), "--output", output, "--epochs", "1", "--finetune-epochs", "0")
    raise AssertionError("no step was done")


def start(made: Path, steps: int) -> Result:
    """From the start of the process to the first step, then some steps, then SIGTERM, which saves the state."""
    return _run_to(steps, "train", *data_arguments(made), "--output", str(_emptied(made / "run")))


def resume(made: Path, steps: int) -> Result:
    """The same for a run that goes on."""
    return _run_to(steps, "train", "--resume", "--output", str(made / "run"))


def _run_to(steps: int, *arguments: str) -> Result:
    from captioner.training import folder, run, stages, words
    from captioner.training.start import Material

    stand_in_encoder()
    clock, found = Clock(), dict[str, Any]()
    clock.watch(folder, "save_state", "saving the state")
    clock.watch(run, "read_captions", "reading captions")
    clock.watch(run, "choose_split", "splitting")
    clock.watch(Material, "of", "vocabulary, tokens, first weights")
    clock.watch(Material, "features", "features")
    clock.watch(stages, "Rewards", "rewards")
    clock.watch(words, "_fitted", "fitting the word predictor")
    clock.watch(run, "plan", "plan")

    def first() -> None:
        found.update(zip(("first", "first_cpu"), clock.since_start(), strict=True), first_mb=peak_mb())

    _stop_at_step(1, first)
    _stop_at_step(steps, lambda: os.kill(os.getpid(), signal.SIGTERM))
    status = command(*arguments)
    state = Path(arguments[-1]) / "state.safetensors"
    return clock.result(status=status, state_mb=state.stat().st_size / 1e6, **found)


def whole(made: Path, steps: int) -> Result:
    """All stages, cut to some steps each, with validation and the end of a run.

    Validation is cut to some pictures, because captions of a network that has hardly learned are long. The rehearsal of
    steps is left out: `start` has it.
    """
    from captioner.training import finish, run, stages, start
    from captioner.training.features import FeatureCache
    from captioner.training.matching import MatchStage
    from captioner.training.start import Material
    from captioner.training.validation import Validation

    stand_in_encoder()
    # Features by the stand-in do not depend on the encoder's weights, so those of the first ones serve for the others.
    [cache] = (made.parent / "cache").glob("features-*.sqlite")
    setattr(start, "FeatureCache", lambda file: FeatureCache(cache))  # noqa: B010 (for mypy)
    clock, peaks = Clock(), list[tuple[str, float]]()
    for kind in (stages.FrozenStage, stages.EndToEndStage, stages.SelfCriticalStage, MatchStage):
        _cut(kind, steps)
    clock.watch(Material, "features", "features")
    clock.watch(stages, "Rewards", "rewards")
    clock.watch(Validation, "scores", "validation")
    clock.watch(Validation, "retrieval", "retrieval")
    clock.watch(Validation, "trust", "confidence")
    clock.watch(finish, "calibration", "calibration")
    setattr(run, "plan", lambda stages, material: "no plan")  # noqa: B010 (for mypy)
    validate_epoch = run._Run.validate_epoch

    def note(until: str) -> None:
        peaks.append((until, peak_mb()))
        print(f"peak until {until}: {peak_mb():.0f} MB, {clock.result()}", file=sys.stderr, flush=True)

    def validated(self: Any, stage: Any, began: float) -> None:
        note(f"training {stage.name}")
        validate_epoch(self, stage, began)
        note(f"validating {stage.name}")

    setattr(run._Run, "validate_epoch", validated)  # noqa: B010 (for mypy)
    epochs = [part for name in ("", "finetune-", "scst-", "match-") for part in (f"--{name}epochs", "1")]
    few = made / "val-few.txt"
    few.write_text("".join((made / "val.txt").read_text().splitlines(keepends=True)[:VALIDATED]))
    arguments = [*data_arguments(made)[:-1], str(few), "--output", str(_emptied(made / "whole")), *epochs]
    status = command("train", *arguments)
    return clock.result(status=status, peaks=[*peaks, ("end", peak_mb())])


def speed(contestant: str, steps: int) -> Iterator[tuple[float, float]]:
    """Rounds of steps of the decoder. Yields seconds and processor seconds a caption."""
    from training import material, ours

    from captioner.training.config import TrainConfig

    data = material(TrainConfig(), *SPEEDS[contestant])
    rounds = ours(data, steps)
    while True:
        used = time.process_time()
        seconds = next(rounds) / len(data.captions)  # it yields those of an epoch
        yield seconds, (time.process_time() - used) / steps / data.config.batch_size


TASKS: dict[str, Callable[[Path, int], Result]] = {
    "fill": fill,
    "check": check,
    "start": start,
    "resume": resume,
    "whole": whole,
}


def _stop_at_step(number: int, deed: Callable[[], None]) -> None:
    """Do a deed right after so many steps of an optimiser."""
    from captioner.training.optimiser import Optimiser

    plain, done = Optimiser.step, 0

    def step(self: Optimiser, loss: Any) -> None:
        nonlocal done
        plain(self, loss)
        done += 1
        if done == number:
            deed()

    Optimiser.step = step  # type: ignore[method-assign]  # a stand-in, in this process only


def _cut(kind: Any, steps: int) -> None:
    """Cut the epochs of a stage to some steps."""
    make, batches = kind.__init__, kind.batches

    def init(self: Any, *arguments: Any) -> None:
        make(self, *arguments)
        self.steps = min(self.steps, steps)

    kind.__init__ = init
    kind.batches = lambda self, generator: batches(self, generator)[: self.steps]


def _emptied(folder: Path) -> Path:
    for file in folder.glob("*"):
        file.unlink()
    return folder


def _answer(result: Result) -> None:
    print(json.dumps(result), file=sys.__stdout__, flush=True)
    os._exit(0)


def measure(folder: Path, task: str, size: str, steps: int) -> Result:
    """Do a task in a process of its own, unless its result is in the folder."""
    results = folder / "results.jsonl"
    for line in results.read_text(encoding="utf-8").splitlines() if results.exists() else ():
        known = json.loads(line)
        if (known["task"], known["size"]) == (task, size):
            return dict(known)
    make_set(folder, size)
    arguments = [__file__, "--folder", str(folder), "--task", task, "--sizes", size, "--steps", str(steps)]
    with (folder / f"{task}-{size}.log").open("w") as log:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(folder),
            text=True,
            check=True,
        )
    result = {"task": task, "size": size, "captions": EACH * sum(numbers_of(size)), "load": os.getloadavg()[0]}
    result |= json.loads(done.stdout.splitlines()[-1])
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    return result


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process: its cache is in the folder."""
    return {**os.environ, "CAPTIONER_CACHE": str(folder / "cache")}


def exponents(values: list[float]) -> list[float]:
    """How a value grows with the size of the set, from each size to the next, which is four times as large."""
    return [math.log(max(b, 1e-9) / max(a, 1e-9)) / math.log(4) for a, b in pairwise(values)]


def rows_of(found: dict[str, list[Result]]) -> Iterator[tuple[str, list[float]]]:
    """The lines of the table of curves: a name, and the value at each size."""

    def part(task: str, name: str, which: int) -> list[float]:
        return [float(each["parts"].get(name, [0.0] * 4)[which]) for each in found[task]]

    def plain(task: str, name: str) -> list[float]:
        return [float(each[name]) for each in found[task]]

    if "check" in found:
        for unit, name, which in (("s", "seconds", 1), ("cpu s", "cpu", 2)):
            reading = part("check", "reading pictures", which)
            beyond = [a - b for a, b in zip(plain("check", name), reading, strict=True)]
            yield f"check beyond reading pictures, {unit}", beyond
        yield "check, peak MB", plain("check", "peak_mb")
    for task in ("start", "resume"):
        if task in found:
            yield f"{task} to the first step, s", plain(task, "first")
            yield f"{task} to the first step, cpu s", plain(task, "first_cpu")
            yield f"{task} to the first step, peak MB", plain(task, "first_mb")
            for name in found[task][-1]["parts"]:
                yield f"{task}: {name}, cpu s", part(task, name, 2)
            yield f"{task}: longest saving of the state, s", part(task, "saving the state", 3)
            yield f"{task}: state, MB", plain(task, "state_mb")
    if "whole" in found:
        yield "whole run, cut, cpu s", plain("whole", "cpu")
        for name in found["whole"][-1]["parts"]:
            yield f"whole: {name}, cpu s", part("whole", name, 2)
        for place, (name, _) in enumerate(found["whole"][-1]["peaks"]):
            yield f"whole: peak MB until {name}", [float(each["peaks"][place][1]) for each in found["whole"]]


def table(sizes: list[str], found: dict[str, list[Result]]) -> list[str]:
    """The curves as a Markdown table."""
    head = ["", *(f"1/{size}" for size in sizes), *(f"exponent {n + 1}" for n in range(len(sizes) - 1))]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, values in rows_of(found):
        cells = [*(f"{value:.1f}" for value in values), *(f"{value:.2f}" for value in exponents(values))]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def compare_speed(rounds: int, steps: int) -> list[str]:
    """Let the decoder's steps at both sizes take turns."""
    commands = {name: [__file__, "--folder", ".", "--contestant", name, "--steps", str(steps)] for name in SPEEDS}
    answers = take_turns(commands, rounds)
    lines = ["| | captions/s | captions per cpu s | of Flickr8k's, per cpu s |", "|---|---:|---:|---:|"]
    base = [cpu for _, cpu in answers["Flickr8k's size"]]
    for name, found in answers.items():
        wall, cpu = ([row[place] for row in found] for place in (0, 1))
        rates = [1 / statistics.median(wall), 1 / statistics.median(cpu)]
        lines.append(f"| {name} | {rates[0]:.0f} | {rates[1]:.0f} | {paired(base, cpu):.2f} |")
    return lines


def main() -> None:
    """Make the sets, do the tasks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the stand-in, its cache and results are kept")
    parser.add_argument("--sizes", nargs="+", default=list(SHARES), help="one part in so many [16 4 1]")
    parser.add_argument("--only", nargs="+", choices=[*TASKS, "speed"], default=[*TASKS, "speed"])
    parser.add_argument("--steps", type=int, default=60, help="steps of a stage, and of a round of the comparison")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the comparison")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--contestant", choices=SPEEDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        ours = speed(args.contestant, args.steps)
        answer_rounds(lambda: next(ours))
        return
    if args.task:
        _answer(TASKS[args.task](args.folder / args.sizes[0], args.steps))
    tasks = [task for task in args.only if task != "speed"]
    found = {task: [measure(args.folder, task, size, args.steps) for size in args.sizes] for task in tasks}
    if found:
        print("\n".join(table(args.sizes, found)), flush=True)
    if "speed" in args.only:
        print("\n".join(["", *compare_speed(args.rounds, args.steps)]))


if __name__ == "__main__":
    main()
