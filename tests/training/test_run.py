"""Whole runs: their records, their end, and every way of being interrupted."""

import dataclasses
import errno
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY_ENCODER, draw_picture
from network.checkpoint_files import with_words

import captioner
from captioner.data.shapes import make_shapes
from captioner.errors import OptionError, OutputError, TrainingError
from captioner.evaluation.scores import score_captions
from captioner.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from captioner.training import run as training_run
from captioner.training import stages
from captioner.training.config import TrainConfig
from captioner.training.first import Start
from captioner.training.folder import Standing, load_state, save_state
from captioner.training.optimiser import Optimiser
from captioner.training.ranks import Ranks
from captioner.training.run import train, train_on
from captioner.training.start import Material
from training.runs import TINY, Killed, kill_after, metrics, quiet, split_of, weights_without_gradients

NONE_AFTER = ("--finetune-epochs", 0, "--scst-epochs", 0, "--match-epochs", 0)
NO_EPOCHS = {"--epochs": "0", "--finetune-epochs": "0", "--scst-epochs": "0"}


@pytest.fixture(autouse=True, scope="module")
def quick_predictor() -> Iterator[None]:
    """The word predictor is fitted in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captioner.training.words._STEPS", 5)
        yield


@pytest.fixture(scope="module")
def finished(
    shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The folder of a run of all stages that was never interrupted, and what it said."""
    lines: list[str] = []
    folder = tmp_path_factory.mktemp("finished") / "run"
    train_on(split_of(shapes), folder, TINY, Start(tiny_weights), say=lines.append)
    return folder, lines


def test_a_run_leaves_its_records_and_a_scored_checkpoint(
    finished: tuple[Path, list[str]], shapes: tuple[Path, Path, Path, Path]
) -> None:
    folder, lines = finished
    assert json.loads((folder / "config.json").read_text())["train"] == dataclasses.asdict(TINY)
    log = metrics(folder)
    assert [row["epoch"] for row in log] == [1, 2, 3, 4, 5]
    assert [row["stage"] for row in log] == ["decoder", "decoder", "end to end", "self-critical", "matching"]
    assert len([line for line in lines if line.startswith("epoch")]) == 5
    assert any("training 2 epochs decoder" in line for line in lines)  # the plan
    assert log[1]["train_loss"] < log[0]["train_loss"]
    provenance = load_checkpoint(folder / "best.safetensors").provenance
    assert provenance["training"] == dataclasses.asdict(TINY)
    assert provenance["encoder_weights"]["source"] == "file tiny.pth"
    assert provenance["data"] == {"captions": "shapes"}
    # The scores are those of exactly the stored weights.
    split = split_of(shapes)
    captions = captioner.load(folder / "best.safetensors").caption_batch([each.path for each in split.validation])
    texts = [caption.text for caption in captions]
    scores = score_captions(texts, [each.captions for each in split.validation])
    assert {name: provenance["validation"][name] for name in scores} == scores
    assert len(log[provenance["epoch"] - 1]["samples"]) == len(texts[:10])
    # A network that has hardly begun to learn is not calibrated, until it is made so.
    calibrated = provenance["calibration"]
    assert calibrated["error_before"] > 2
    assert calibrated["temperature"] != 1
    assert calibrated["error"] < calibrated["error_before"]
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "best.safetensors",
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "reliability.png",
        "samples.html",
        "state.safetensors",
    ]


def test_without_matplotlib_a_run_only_lacks_its_curves(
    finished: tuple[Path, list[str]],
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    lines: list[str] = []
    train_on(split_of(shapes), tmp_path / "run", TINY, Start(tiny_weights), say=lines.append)
    assert [line for line in lines if line.startswith("note: matplotlib is not installed") and "[train]" in line]
    assert (tmp_path / "run/best.safetensors").read_bytes() == (finished[0] / "best.safetensors").read_bytes()
    there, all_files = ({file.name for file in folder.iterdir()} for folder in (tmp_path / "run", finished[0]))
    assert all_files - there == {"curves.png", "reliability.png"}


def test_freed_memory_is_given_back_between_steps_and_validation(
    shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They need blocks of different sizes. At COCO's size, holding both kinds takes more than a gigabyte."""
    done = []

    def watch(owner: object, name: str) -> None:
        plain = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given: done.append(name) or plain(*given))

    for owner, name in ((training_run._Run, "train_epoch"), (training_run._Run, "validate_epoch")):
        watch(owner, name)
    watch(training_run, "give_back_freed_memory")
    watch(stages, "give_back_freed_memory")
    config = dataclasses.replace(TINY, epochs=2, finetune_epochs=0, scst_epochs=0, match_epochs=0)
    train_on(split_of(shapes), tmp_path / "run", config, Start(tiny_weights), say=quiet)
    given = "give_back_freed_memory"
    of_an_epoch = ["train_epoch", given, "validate_epoch", given]
    assert done == [
        given,
        *of_an_epoch,
        *of_an_epoch,
        given,
    ]  # the first one is after the rehearsal, the last after the stage


def test_a_log_says_how_far_it_is_and_explains_itself(
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("captioner.inference.progress.SECONDS", 0.001)
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "cache"))
    lines: list[str] = []
    config = dataclasses.replace(TINY, epochs=1)
    train_on(split_of(shapes), tmp_path / "run", config, Start(tiny_weights), say=lines.append)
    log = capsys.readouterr().err
    for said in (
        r"captioner: encoding: \d+ of 48 pictures",
        r"captioner: epoch 1/4 decoder: \d of 9 steps, about \d+ s left",
        r"captioner: epoch 2/4 end to end: \d of 2 steps",
        r"captioner: epoch 4/4 matching: \d of 3 steps",
        r"captioner: captioning what is validated on: \d+ of 12 pictures",
        r"captioner: calibrating: 0 of 1 checkpoint",
    ):
        assert re.search(said, log), said
    assert "\r" not in log
    [plan] = [line for line in lines if line.startswith("training")]
    assert "training 1 epoch decoder (" in plan
    epochs = [line for line in lines if line.startswith("epoch")]
    assert epochs[0].endswith(" s, best so far")
    assert not any("*" in line for line in lines)


@pytest.mark.slow
def test_a_warning_names_captions_that_have_collapsed(
    shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(enough: int, caption: str) -> list[str]:
        """The lines of a run of 4 epochs whose captions are all the same."""
        lines: list[str] = []
        config = dataclasses.replace(TINY, epochs=4, finetune_epochs=0, scst_epochs=0, match_epochs=0, patience=1.0)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with monkeypatch.context() as patch:
            patch.setattr("captioner.training.validation.ENOUGH", enough)
            same = SimpleNamespace(text=caption)
            patch.setattr(captioner.Captioner, "caption_features", lambda self, rows: [same] * len(rows))
            train_on(split_of(shapes), folder, config, Start(tiny_weights), say=lines.append)
        return [line for line in lines if line.startswith(("epoch", "warning"))]

    # It is said once a stage, from its middle on: in the first epochs captions may well be alike.
    first, second, distinct, floor, *others = said(12, "A red circle")
    assert [line[:7] for line in (first, second, *others)] == [f"epoch {number}" for number in (1, 2, 3, 4)]
    assert distinct.startswith("warning: captions have collapsed: only 1 distinct caption for 12 pictures: ")
    assert re.match(r"warning: captions have collapsed: BLEU-4 .* of one caption for every picture, '", floor)
    assert len(said(13, "A red circle")) == 4  # too few pictures to tell


def test_every_weight_of_every_stage_gets_a_gradient(
    shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = weights_without_gradients(monkeypatch)
    train_on(split_of(shapes), tmp_path / "run", TINY, Start(tiny_weights), say=quiet)
    assert not without


# 144 captions, 48 pictures: 9 steps an epoch of the decoder, then 2 an epoch of each stage.
@pytest.mark.parametrize(
    "steps", [1, 10, 19, 22, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (7, 9, 18, 20, 21))]
)
@pytest.mark.parametrize("seconds_between_states", [0.0, pytest.param(1e9, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_bit_for_bit(
    finished: tuple[Path, list[str]],
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    steps: int,
    seconds_between_states: float,
) -> None:
    arguments = (split_of(shapes), tmp_path / "run", TINY, Start(tiny_weights))
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(Killed):
            train_on(*arguments, say=quiet, seconds_between_states=seconds_between_states)
    train_on(*arguments, resume=True, say=quiet)
    assert (tmp_path / "run/best.safetensors").read_bytes() == (finished[0] / "best.safetensors").read_bytes()
    assert metrics(tmp_path / "run") == metrics(finished[0])


@pytest.mark.parametrize("steps", [3, 9, 19])
def test_ctrl_c_saves_and_says_how_to_go_on(
    finished: tuple[Path, list[str]],
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    steps: int,
) -> None:
    arguments = (split_of(shapes), tmp_path / "run", TINY, Start(tiny_weights))
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, steps, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train_on(*arguments, say=lines.append)
    assert "--resume" in lines[-1]
    standing, _ = load_state(tmp_path / "run")
    assert 9 * standing.epoch + standing.step == steps if standing.stage == 0 else standing.step == steps - 18
    train_on(*arguments, resume=True, say=quiet)
    assert (tmp_path / "run/best.safetensors").read_bytes() == (finished[0] / "best.safetensors").read_bytes()


@pytest.mark.parametrize("place", ["validation.Validation.scores", "run.finish"])
def test_ctrl_c_in_validation_and_calibration_says_how_to_go_on(
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    lines: list[str] = []
    monkeypatch.setattr(f"captioner.training.{place}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_on(split_of(shapes), tmp_path / "run", TINY, Start(tiny_weights), say=lines.append)
    where = "epoch 1/5 decoder" if "scores" in place else "calibration"
    assert lines[-1].startswith(f"stopped in {where}; to continue from there: captioner train --resume --output ")


def test_a_resumed_run_uses_as_many_threads_as_when_it_began(
    finished: tuple[Path, list[str]],
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their number changes the order of sums, and so the last bits of weights."""
    arguments = (split_of(shapes), tmp_path / "run", TINY, Start(tiny_weights))
    lines: list[str] = []
    used: set[int] = set()
    threads = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    try:
        torch.set_num_threads(2)
        kill_after(monkeypatch, 20)
        with pytest.raises(Killed):
            train_on(*arguments, say=quiet)
        assert torch.get_num_threads() == 2  # as before the run
        monkeypatch.setattr("captioner.training.start.free_cpus", lambda since: 2)  # another program has ended
        kill_after(monkeypatch, 1, lambda: used.add(torch.get_num_threads()))
        train_on(*arguments, resume=True, say=lines.append)
    finally:
        torch.set_num_threads(threads)
    assert used == {1}
    assert "computing with 1 thread, as when this run began: the number affects rounding" in lines
    assert load_state(tmp_path / "run")[0].threads == 1
    assert (tmp_path / "run/best.safetensors").read_bytes() == (finished[0] / "best.safetensors").read_bytes()


def test_words_that_a_small_set_lacks_keep_their_rates(
    shapes: tuple[Path, Path, Path, Path], tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    known = with_words(tiny_checkpoint)
    known.model.decoder.words.rates.fill_(0.25)
    save_checkpoint(tmp_path / "known.safetensors", known)
    material = Material.of(
        TrainConfig(minimum_count=1), split_of(shapes), Start(init=tmp_path / "known.safetensors"), Ranks()
    )
    rates = dict(zip(material.vocabulary.words, material.model.decoder.words.rates.tolist(), strict=True))
    assert rates["cat"] == 0.25
    assert rates["a"] > 0.9
    assert rates["circle"] > 0


def test_a_run_uses_as_many_threads_as_processors_are_free_unless_the_user_has_chosen(
    shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(TINY, epochs=0)
    before = time.monotonic()
    material = Material.of(config, split_of(shapes), Start(tiny_weights), Ranks())
    after = time.monotonic()
    assert material.measured
    assert material.measured.at - before < (after - before) / 2  # so that there was time to see what others do
    threads = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    try:
        torch.set_num_threads(3)
        for free, wanted in ((1, 1), (2, 2), (8, 3)):
            now = material.measured
            monkeypatch.setattr(
                "captioner.training.start.free_cpus", lambda since, free=free, now=now: free if since is now else -1
            )
            assert material.threads() == wanted
        monkeypatch.setattr("captioner.training.start.free_cpus", lambda since: 1)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert material.threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_a_picture_that_vanishes_is_named_and_nothing_is_lost(
    finished: tuple[Path, list[str]],
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(shapes[0].parent, tmp_path / "shapes")
    moved = tuple(tmp_path / "shapes" / path.relative_to(shapes[0].parent) for path in shapes)
    arguments = (split_of(moved), tmp_path / "run", TINY, Start(tiny_weights))
    gone = arguments[0].train[7].path
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 18, lambda: gone.rename(tmp_path / "away") and None)
        with pytest.raises(TrainingError, match=rf"{gone.name}.*put it back.*--resume"):
            train_on(*arguments, say=quiet)
    (tmp_path / "away").rename(gone)
    train_on(*arguments, resume=True, say=quiet)
    assert (tmp_path / "run/best.safetensors").read_bytes() == (finished[0] / "best.safetensors").read_bytes()


def test_a_full_disk_leaves_the_state_before(
    finished: tuple[Path, list[str]], shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    arguments = (split_of(shapes), tmp_path / "run", TINY, Start(tiny_weights))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 12, lambda: patch.setattr("captioner.training.folder.save_state", full))
        with pytest.raises(TrainingError, match=r"No space left on device.*the state before it is kept.*--resume"):
            train_on(*arguments, say=quiet)
    assert load_state(tmp_path / "run")[0].epoch == 1
    train_on(*arguments, resume=True, say=quiet)
    assert (tmp_path / "run/best.safetensors").read_bytes() == (finished[0] / "best.safetensors").read_bytes()


def test_a_run_is_neither_overwritten_nor_gone_on_with_by_another(
    finished: tuple[Path, list[str]], shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    folder, _ = finished
    before = (folder / "best.safetensors").read_bytes()
    with pytest.raises(OutputError, match="holds a run already"):
        train_on(split_of(shapes), folder, TINY, Start(tiny_weights), say=quiet)
    with pytest.raises(OutputError, match="other options or other data"):
        train_on(split_of(shapes), folder, dataclasses.replace(TINY, seed=1), Start(tiny_weights), True, quiet)
    with pytest.raises(TrainingError, match="no run to resume"):
        train_on(split_of(shapes), tmp_path, TINY, Start(tiny_weights), True, quiet)
    # One that is done is done: going on with it changes nothing.
    train_on(split_of(shapes), folder, TINY, Start(tiny_weights), True, quiet)
    assert (folder / "best.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda standing, tensors: tensors.pop("model.decoder.h0.bias"),
        lambda standing, tensors: tensors.update({"model.more": torch.zeros(1)}),
        lambda standing, tensors: tensors.update({"model.decoder.h0.bias": torch.zeros(3)}),
        lambda standing, tensors: tensors.update({"networks.bias": torch.zeros(3)}),
        lambda standing, tensors: setattr(standing, "stage", 9),
        lambda standing, tensors: setattr(standing, "stage", 0),  # whose moments are not there
        lambda standing, tensors: [setattr(standing, "stage", 0), setattr(standing, "epoch", 5)],
    ],
    ids=["missing", "extra", "shape", "group", "stage", "moments", "epoch"],
)
def test_a_state_of_another_network_is_refused(
    finished: tuple[Path, list[str]],
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    change: Callable[[Standing, dict[str, torch.Tensor]], object],
) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    standing, tensors = load_state(tmp_path / "run")
    standing.epoch = max(standing.epoch, 1)
    change(standing, tensors)
    save_state(tmp_path / "run", standing, tensors)
    before = (tmp_path / "run/best.safetensors").read_bytes()
    with pytest.raises(TrainingError, match=r"state\.safetensors: damaged.*--init"):
        train_on(split_of(shapes), tmp_path / "run", TINY, Start(tiny_weights), True, quiet)
    assert (tmp_path / "run/best.safetensors").read_bytes() == before


def test_one_call_does_what_the_command_does(
    finished: tuple[Path, list[str]], shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    captions, images, train_list, val_list = map(str, shapes)
    lists = {"train_list": train_list, "val_list": val_list}
    run = str(tmp_path / "run")
    path = train(captions, images, run, TINY, **lists, encoder_weights=str(tiny_weights), say=quiet)
    assert path == tmp_path / "run/best.safetensors"
    ours, theirs = (load_checkpoint(file).model.state_dict() for file in (path, finished[0] / "best.safetensors"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    content = path.read_bytes()
    train(captions, images, run, TINY, **lists, encoder_weights=str(tiny_weights), resume=True, say=quiet)
    assert path.read_bytes() == content
    with pytest.raises(OptionError, match=r"leave out encoder_weights"):
        train(captions, images, tmp_path / "other", TINY, init=path, encoder_weights=tiny_weights)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_the_encoder_learns_only_end_to_end(
    shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    def trained(name: str, **changes: float) -> dict[str, torch.Tensor]:
        config = dataclasses.replace(TINY, scst_epochs=0, **changes)
        path = train_on(split_of(shapes), tmp_path / name, config, Start(tiny_weights), say=quiet)
        return load_checkpoint(path).model.state_dict()

    frozen, again, other, tuned = (
        trained("a", finetune_epochs=0),
        trained("b", finetune_epochs=0),
        trained("c", finetune_epochs=0, seed=1),
        trained("d", epochs=0, finetune_epochs=1, encoder_learning_rate=0.05),
    )
    assert all(torch.equal(frozen[name], again[name]) for name in frozen)
    assert not torch.equal(frozen["decoder.h0.weight"], other["decoder.h0.weight"])
    given = {name: w.half().float() for name, w in torch.load(tiny_weights, weights_only=True).items()}
    for name, weights in given.items():
        assert torch.equal(frozen["encoder.backbone." + name], weights), name
        statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(tuned["encoder.backbone." + name], weights) == statistic, name


@pytest.mark.parametrize(
    "cell", ["gru", *(pytest.param(cell, marks=pytest.mark.slow) for cell in ("rnn", "rnn-relu", "peephole"))]
)
def test_every_cell_learns_in_every_stage(
    shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path, cell: str
) -> None:
    config = dataclasses.replace(TINY, cell=cell, layers=2)
    path = train_on(split_of(shapes), tmp_path / "run", config, Start(tiny_weights), say=quiet)
    log = metrics(tmp_path / "run")
    assert log[1]["loss"] < log[0]["loss"] < math.log(30)
    assert load_checkpoint(path).model.config.cell == cell


def test_a_stage_that_gets_no_better_stops_and_the_best_is_kept(
    shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    config = dataclasses.replace(
        TINY,
        epochs=6,
        learning_rate=0.0,
        finetune_learning_rate=0.0,
        encoder_learning_rate=0.0,
        scst_epochs=0,
        match_epochs=0,
        patience=0.3,
    )
    path = train_on(split_of(shapes), tmp_path / "run", config, Start(tiny_weights), say=lines.append)
    # The first epoch of each stage is its best so far, and the two after it are no better.
    assert [row["stage"] for row in metrics(tmp_path / "run")] == ["decoder"] * 3 + ["end to end"]
    assert len([line for line in lines if "this stage ends" in line]) == 1
    assert load_checkpoint(path).provenance["epoch"] == 4  # the end of a stage, no worse than before


@pytest.mark.parametrize("steps", [12, 18])
def test_a_diverged_run_says_so_and_keeps_what_it_had(
    shapes: tuple[Path, Path, Path, Path], tiny_weights: Path, tmp_path: Path, steps: int
) -> None:
    """Also when it diverges in the last step of an epoch, before it is validated."""
    config = dataclasses.replace(TINY, learning_rate=1.0, gradient_clip=math.inf)

    def spoil() -> None:
        run_folder = tmp_path / "run"
        assert (run_folder / "best.safetensors").is_file()

    with pytest.MonkeyPatch.context() as patch:
        plain = Optimiser.step
        done = 0

        def step(self: Optimiser, loss: torch.Tensor) -> None:
            nonlocal done
            done += 1
            plain(self, loss)
            if done == steps:
                spoil()
                with torch.no_grad():
                    next(iter(self.named.values())).fill_(math.nan)

        patch.setattr(Optimiser, "step", step)
        with pytest.raises(TrainingError, match=r"diverged.*smaller learning rate.*best\.safetensors holds the best"):
            train_on(split_of(shapes), tmp_path / "run", config, Start(tiny_weights), say=quiet)
    load_checkpoint(tmp_path / "run/best.safetensors")
    assert load_state(tmp_path / "run")[0].epoch == 1


def _train(shapes: tuple[Path, Path, Path, Path], folder: Path, weights: Path, cache: str) -> None:
    """A run in a process of `multiprocessing`, which saves its state all the time."""
    os.environ["CAPTIONER_CACHE"] = cache
    torch.set_num_threads(1)
    resume = (folder / "state.safetensors").exists()
    train_on(split_of(shapes), folder, TINY, Start(weights), resume, quiet, 0.05)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no such kills")
def test_kills_at_random_moments_change_no_byte(
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    pytestconfig: pytest.Config,
    forkserver: ForkServerContext,
) -> None:
    """SIGKILL from outside, at any moment of a process that saves its state all the time."""
    wanted, cache = pytestconfig.getoption("kills"), os.environ["CAPTIONER_CACHE"]

    def begin(folder: Path) -> ForkServerProcess:
        process = forkserver.Process(target=_train, args=(shapes, folder, tiny_weights, cache))
        process.start()
        return process

    for name in ("first", "whole"):  # the first one is slower: it computes features that are kept
        started = time.monotonic()
        process = begin(tmp_path / name)
        process.join()
        assert process.exitcode == 0
    seconds = time.monotonic() - started
    rng, kills, torn, runs = random.Random(0), 0, 0, 0
    while kills < wanted:
        folder, stands = tmp_path / f"killed{runs}", (-1,)
        for share in (*(rng.uniform(0.05, 1.0) for _ in range(4)), None):  # it is not killed for ever
            process = begin(folder)
            process.join(share and share * seconds)
            process.kill()  # in vain where it is over
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            kills += 1
            torn += len(list(folder.glob(".captioner-*")))
            if (folder / "state.safetensors").exists():
                standing, _ = load_state(folder)
                stood, stands = stands, (standing.stage, standing.epoch, standing.step)
                assert stands >= stood, "what was saved is lost"
            else:
                assert stands == (-1,), "the state is gone"
                shutil.rmtree(folder, ignore_errors=True)
        runs += 1
        assert (folder / "best.safetensors").read_bytes() == (tmp_path / "whole/best.safetensors").read_bytes()
        assert not list(folder.glob(".captioner-*")), "what kills left is not cleared away"
    print(
        f"\ntraining: {kills} kills, {torn} of them while a file was written, {runs} runs; nothing lost, the same bytes"
    )


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "captioner", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--encoder": "resnet1000"}, "unknown encoder 'resnet1000'"),
        ({"--encoder": "squeezenet1_0"}, "no linear classifier"),
        ({"--images": "elsewhere"}, "elsewhere: no such file or folder"),
        ({"--images": "."}, "pictures not in"),
        ({"--captions": "none.txt"}, "none.txt: no such file or folder"),
        ({"--train-list": "empty.txt"}, "the split list is empty"),
        ({"--val-list": "TRAIN"}, "in both split lists"),
        ({"--encoder-weights": "none.pth"}, "no such file"),
        (NO_EPOCHS, "captions would stay those of random weights"),
        ({**NO_EPOCHS, "--match-epochs": "0"}, "nothing"),
        ({"--dropout": "1.5"}, "dropout must be at most"),
    ],
)
def test_wrong_input_gets_one_clear_line_and_status_2(
    command: Callable[..., tuple[int, str, str]],
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n")
    arguments = {
        "--captions": str(shapes[0]),
        "--images": str(shapes[1]),
        "--train-list": str(shapes[2]),
        "--val-list": str(shapes[3]),
        "--encoder": TINY_ENCODER,
        "--encoder-weights": str(tiny_weights),
        "--output": "run",
        **{name: value.replace("TRAIN", str(shapes[2])) for name, value in changes.items()},
    }
    status, output, errors = command("train", *(part for pair in arguments.items() for part in pair))
    assert status == 2
    assert message in errors.splitlines()[-1]
    assert output == ""
    assert not Path("run").exists()


def test_the_command_goes_on_from_a_checkpoint_with_the_options_of_a_run(
    command: Callable[..., tuple[int, str, str]],
    finished: tuple[Path, list[str]],
    shapes: tuple[Path, Path, Path, Path],
    tmp_path: Path,
) -> None:
    folder, _ = finished
    data = ("--captions", shapes[0], "--images", shapes[1])
    init = ("--init", folder / "best.safetensors", "--config", folder / "config.json")
    status, output, errors = command("train", *data, *init, "--epochs", 1, *NONE_AFTER, "--output", tmp_path / "run")
    assert status == 0, errors
    assert output.strip() == str(tmp_path / "run/best.safetensors")
    content = json.loads((tmp_path / "run/config.json").read_text())
    assert content["train"] == dataclasses.asdict(
        dataclasses.replace(TINY, epochs=1, finetune_epochs=0, scst_epochs=0, match_epochs=0, tokens="word")
    )
    assert content["init"]["provenance"]["training"] == dataclasses.asdict(TINY)
    assert len(content["data"]["split"]["validation"]) == 6  # a random tenth, written down
    # What was learned is still there: it begins better than the run before it ended.
    assert metrics(tmp_path / "run")[0]["loss"] < metrics(folder)[0]["loss"]


FLAGS = [
    part
    for name, value in dataclasses.asdict(TINY).items()
    if value != getattr(TrainConfig(), name)
    for part in ("--" + name.replace("_", "-"), value)
]


def test_resume_alone_goes_on_with_the_data_and_options_of_the_run(
    command: Callable[..., tuple[int, str, str]],
    finished: tuple[Path, list[str]],
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(shapes[0].parent, tmp_path / "set")
    names = [str(Path("set") / path.relative_to(shapes[0].parent)) for path in shapes]
    (tmp_path / "link.txt").symlink_to(names[0])
    names[0] = "link.txt"  # whose name is part of what a run was trained on
    arguments = zip(("--captions", "--images", "--train-list", "--val-list"), names, strict=True)
    monkeypatch.chdir(tmp_path)
    data = (*(part for pair in arguments for part in pair), "--encoder-weights", tiny_weights)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 12)
        with pytest.raises(Killed):
            command("train", *data, *FLAGS, "--output", "killed")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    run_folder = Path("..", "killed")
    for other in (("--seed", 1), ("--captions", shapes[0], "--train-list", shapes[3])):
        status, _, errors = command("train", "--resume", "--output", run_folder, *other)
        assert status == 2, other
    status, output, errors = command("train", "--resume", "--output", run_folder)
    assert status == 0, errors
    assert output.strip() == str(run_folder / "best.safetensors")
    assert metrics(run_folder) == metrics(finished[0])
    one, other = (load_checkpoint(folder / "best.safetensors") for folder in (run_folder, finished[0]))
    assert all(torch.equal(t, other.model.state_dict()[name]) for name, t in one.model.state_dict().items())
    assert str(tmp_path) not in json.dumps(one.provenance)  # a checkpoint does not tell whose folders these were
    # Python does the same, and a run that is done does not change.
    before = (run_folder / "best.safetensors").read_bytes()
    train(None, None, run_folder, resume=True, say=quiet)
    assert (run_folder / "best.safetensors").read_bytes() == before


@pytest.mark.slow
def test_the_config_of_a_run_gives_its_data_to_another(
    command: Callable[..., tuple[int, str, str]],
    shapes: tuple[Path, Path, Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(TINY, epochs=1, finetune_epochs=0, scst_epochs=0)
    captions, images, *lists = shapes
    given = {"train_list": lists[0], "val_list": lists[1], "encoder_weights": tiny_weights, "say": quiet}
    train(captions, images, tmp_path / "first", config, **given)
    again = ("train", "--config", tmp_path / "first" / "config.json", "--output")
    status, _, errors = command(*again, tmp_path / "second", "--seed", 1)
    assert status == 0, errors
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "second"))
    assert second == {**first, "train": {**first["train"], "seed": 1}}
    # Other captions are split anew, and what is trained on from has its own encoder.
    best = tmp_path / "first" / "best.safetensors"
    status, _, errors = command(*again, tmp_path / "third", "--captions", captions, "--init", best)
    assert status == 0, errors
    third = json.loads((tmp_path / "third" / "config.json").read_text())["given"]
    assert third == {"captions": str(captions), "images": str(images), "init": str(best)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resume",), "there is no run to resume here: leave out --resume to begin one"),
        (("--captions", "captions.txt"), "training needs captions (--captions FILE) and images (--images DIR)"),
        ((), "training needs captions (--captions FILE) and images (--images DIR)"),
    ],
)
def test_a_beginning_without_data_says_what_it_needs(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    status, output, errors = command("train", "--output", tmp_path / "run", *arguments)
    assert (status, output) == (2, "")
    assert message in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--init", "best", "--hidden-size", 9), "fixes hidden_size: leave out hidden_size (--hidden-size)"),
        (("--init", "best", "--encoder-weights", "x.pth"), "leave out encoder_weights (--encoder-weights)"),
        (("--init", "none.safetensors"), "no such checkpoint"),
        (("--config", "none.json"), "not the config.json of a run"),
        (("--resume",), "there is no run to resume here"),
    ],
)
def test_beginnings_that_do_not_fit_are_refused(
    command: Callable[..., tuple[int, str, str]],
    finished: tuple[Path, list[str]],
    shapes: tuple[Path, Path, Path, Path],
    tmp_path: Path,
    arguments: tuple[object, ...],
    message: str,
) -> None:
    given = [finished[0] / "best.safetensors" if value == "best" else value for value in arguments]
    data = ("--captions", shapes[0], "--images", shapes[1], "--output", tmp_path / "run")
    status, output, errors = command("train", *data, *given)
    assert (status, output) == (2, "")
    assert message in errors.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "cell"), [*(("en", cell) for cell in ("lstm", "gru", "rnn", "rnn-relu", "peephole")), ("zh", "lstm")]
)
def test_shapes_from_pictures_to_bleu(tmp_path: Path, language: str, cell: str) -> None:
    """The whole path by the command: generated pictures, training from the shipped encoder, held-out pictures."""
    captions, images, train_list, val_list = make_shapes(tmp_path, 270, language=language)
    done = run(
        *("train", "--captions", captions, "--images", images, "--train-list", train_list, "--val-list", val_list),
        *("--cell", cell, "--epochs", 50, "--finetune-epochs", 4, "--match-epochs", 10, "--patience", 1.0),
        *("--image-size", 96, "--hidden-size", 128, "--embedding-size", 64, "--minimum-count", 1, "--batch-size", 32),
        *("--output", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    checkpoint = done.stdout.strip()
    scored = run(
        *("evaluate", "--captions", captions, "--images", images, "--split-list", val_list),
        *("--checkpoint", checkpoint, "--json", tmp_path / "scores.json"),
    )
    assert scored.returncode == 0, scored.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["images"] == 54
    assert scores["bleu_4"] > 90
    assert scores["tokens"] == ("character" if language == "zh" else "word")
    draw_picture(1).save(tmp_path / "other.png")
    assert run("caption", tmp_path / "other.png", "--checkpoint", checkpoint).returncode == 0
