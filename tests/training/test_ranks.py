"""Several processes train what one would; one that dies ends the run and loses nothing that was saved."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_ENCODER

import captioner
from captioner.data.shapes import make_shapes
from captioner.network.encoder import Encoder
from captioner.training.config import TrainConfig
from captioner.training.first import Start
from captioner.training.folder import load_state
from captioner.training.ranks import Ranks
from captioner.training.run import train_on

CONFIG = TrainConfig(
    encoder=TINY_ENCODER,
    epochs=2,
    finetune_epochs=1,
    scst_epochs=1,
    match_epochs=1,
    scst_samples=2,
    batch_size=17,  # so that the last batch of an epoch is another than the others
    finetune_batch_size=9,
    image_size=32,
    hidden_size=32,
    embedding_size=16,
    concepts=10,
    minimum_count=1,
)


def test_one_rank_of_one_changes_nothing() -> None:
    ranks, rows = Ranks(), torch.randn(5, 2)
    assert ranks.first
    assert ranks.share(5).tolist() == [0, 1, 2, 3, 4]
    assert ranks.gather(rows, 5) is rows
    assert ranks.gather_texts(["a", "b"], 2) == ["a", "b"]
    assert ranks.sum(1.5, torch.tensor(2.0)) == [1.5, 2.0]
    state = torch.get_rng_state()
    ranks.own_randomness()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("number", [0, 1, 4, 5])
def test_every_thing_is_in_one_share(number: int) -> None:
    shares = [Ranks(rank, 3).share(number).tolist() for rank in range(3)]
    assert sorted(chain.from_iterable(shares)) == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_all_weights_of_an_objective_are_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """DistributedDataParallel refuses a module with weights on the CPU and on a GPU."""
    monkeypatch.setattr("torch.nn.parallel.DistributedDataParallel", lambda module, **options: module)
    network = torch.nn.Linear(2, 2, device="meta")
    module = Ranks(0, 2, torch.device("meta")).objective([network], lambda: ())
    assert len(list(module.parameters())) == 3
    assert {weights.device.type for weights in module.parameters()} == {"meta"}


class Runs:
    """Runs of `rank.py` on a set of shapes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes = make_shapes(folder / "shapes", 60)
        self.weights = folder / "tiny.pth"
        torch.manual_seed(5)
        encoder = Encoder(TINY_ENCODER)
        classifier = {"fc.weight": torch.randn(1000, encoder.feature_size), "fc.bias": torch.zeros(1000)}
        torch.save(encoder.backbone.state_dict() | classifier, self.weights)

    def start(self, ranks: int, output: Path, config: TrainConfig = CONFIG, **task: Any) -> subprocess.Popen[str]:
        """Begin a run of so many processes."""
        content = {
            "shapes": [str(path) for path in self.shapes],
            "weights": str(self.weights),
            "output": str(output),
            "config": dataclasses.asdict(config),
            **task,
        }
        file = output.with_name(output.name + ".task.json")
        file.write_text(json.dumps(content))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        return subprocess.Popen(
            [*launcher, str(Path(__file__).with_name("rank.py")), str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CAPTIONER_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1"},
        )

    def finish(self, *arguments: Any, **task: Any) -> tuple[int, str, str]:
        """A whole run: exit status, stdout, stderr."""
        process = self.start(*arguments, **task)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def finished(runs: Runs) -> tuple[Path, str]:
    """The folder of a run by two processes through all stages, and what they said."""
    status, out, err = runs.finish(2, runs.folder / "finished")
    assert status == 0, err
    return runs.folder / "finished", out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs", "finetune_epochs", "texts"),
    [(10, 0, False), (0, 13, False), (6, 0, True)],
    ids=["decoder", "end to end", "texts"],
)
def test_two_ranks_have_the_losses_of_one(
    runs: Runs, text: Path, tmp_path: Path, epochs: int, finetune_epochs: int, texts: bool
) -> None:
    config = dataclasses.replace(
        CONFIG,
        epochs=epochs,
        finetune_epochs=finetune_epochs,
        scst_epochs=0,
        match_epochs=0,
        batch_size=7,
        finetune_batch_size=3,
        dropout=0.0,
        patience=1.0,
    )
    losses = []
    for ranks in (1, 2):
        file = tmp_path / f"losses{ranks}.json"
        more = {"text": str(text)} if texts else {}
        status, _, err = runs.finish(ranks, tmp_path / f"run{ranks}", config, exact=True, losses=str(file), **more)
        assert status == 0, err
        losses.append(json.loads(file.read_text()))
    alone, together = losses
    assert len(alone) == len(together) >= 200

    difference = max(abs(a - b) for a, b in zip(alone, together, strict=True))
    assert sum(alone[-10:]) < sum(alone[:10]) - 2  # so there was something to get wrong
    assert difference < 1e-6


@pytest.mark.slow
def test_two_ranks_match_as_one_does(runs: Runs, tmp_path: Path) -> None:
    """Each computes whole batches, with the same randomness."""
    config = dataclasses.replace(CONFIG, epochs=1, finetune_epochs=0, scst_epochs=0, match_epochs=6, patience=1.0)
    losses = []
    for ranks in (1, 2):
        file = tmp_path / f"losses{ranks}.json"
        status, _, err = runs.finish(ranks, tmp_path / f"run{ranks}", config, exact=True, losses=str(file))
        assert status == 0, err
        losses.append(json.loads(file.read_text())[-18:])  # of six epochs with a step for each caption of a picture
    alone, together = losses
    assert max(abs(a - b) for a, b in zip(alone, together, strict=True)) < 1e-3
    assert len(set(alone)) == 18


@pytest.mark.slow
def test_all_stages_and_only_the_first_rank_speaks(finished: tuple[Path, str]) -> None:
    folder, out = finished
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == ["decoder", "decoder", "end to end", "self-critical", "matching"]
    assert rows[1]["loss"] < rows[0]["loss"]
    assert len([line for line in out.splitlines() if line.startswith("epoch")]) == 5
    assert load_state(folder)[0].ranks == 2
    scores = captioner.load(folder / "best.safetensors").provenance["validation"]
    assert scores["images"] == rows[0]["images"]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 19, 21])
def test_a_rank_that_is_killed_ends_the_run_which_goes_on_bit_for_bit(
    runs: Runs, finished: tuple[Path, str], tmp_path: Path, steps: int
) -> None:
    started = time.monotonic()
    status, _, err = runs.finish(2, tmp_path / "run", die=(1, steps, signal.SIGKILL))
    assert status != 0
    assert time.monotonic() - started < 60
    assert "Signal 9 (SIGKILL)" in err
    assert load_state(tmp_path / "run")[0].rows or steps == 3
    status, out, err = runs.finish(2, tmp_path / "run", resume=True)
    assert status == 0, err
    assert "resuming" in out
    assert (tmp_path / "run/best.safetensors").read_bytes() == (finished[0] / "best.safetensors").read_bytes()


@pytest.mark.slow
def test_three_ranks_go_on_bit_for_bit_and_stop_together(runs: Runs, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, scst_epochs=0)
    assert runs.finish(3, tmp_path / "whole", config)[0] == 0
    # A cluster that takes a machine away sends SIGTERM; here only one rank hears it.
    status, out, _ = runs.finish(3, tmp_path / "run", config, die=(2, 4, signal.SIGTERM))
    assert status != 0
    assert "stopped in epoch 1/3 decoder; to continue from there: captioner train --resume --output" in out
    assert load_state(tmp_path / "run")[0].step == 4
    assert runs.finish(3, tmp_path / "run", config, resume=True)[0] == 0
    assert (tmp_path / "run/best.safetensors").read_bytes() == (tmp_path / "whole/best.safetensors").read_bytes()


@pytest.mark.slow
def test_another_number_of_ranks_or_other_data_is_refused(
    runs: Runs, finished: tuple[Path, str], tmp_path: Path
) -> None:
    before = (finished[0] / "best.safetensors").read_bytes()
    status, _, err = runs.finish(1, finished[0], resume=True)
    assert status != 0
    assert "trained by 2 processes so far, and one process would give another result" in err
    assert (finished[0] / "best.safetensors").read_bytes() == before
    status, _, err = runs.finish(2, tmp_path / "run", other=True)
    assert status != 0
    assert "were not given the same options, captions and first weights" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_of_one_process_is_the_run_without_torchrun(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from captioner.data.captions import read_captions
    from captioner.data.splits import Split, find_examples, read_split_list

    monkeypatch.setenv("CAPTIONER_CACHE", str(runs.folder / "cache"))
    monkeypatch.setattr("captioner.training.words._STEPS", 20)  # as in rank.py
    captions = read_captions(runs.shapes[0]).captions
    learn, validate = (find_examples(captions, runs.shapes[1], read_split_list(names)) for names in runs.shapes[2:])
    split = Split(learn, validate, {"captions": "shapes", "pictures": len(learn)})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_on(split, tmp_path / "alone", CONFIG, Start(runs.weights), say=lambda line: None)
    finally:
        torch.set_num_threads(threads)
    assert runs.finish(1, tmp_path / "run")[0] == 0
    assert (tmp_path / "run/best.safetensors").read_bytes() == (tmp_path / "alone/best.safetensors").read_bytes()
