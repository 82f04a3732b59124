"""A training run: the stages one after the other, validated every epoch, resumable at any moment."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import platform
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from captioner import __version__
from captioner.data.splits import Split
from captioner.errors import ImageError, TrainingError
from captioner.files import remove_temporaries, replacing
from captioner.inference.captioner import PictureEncoder
from captioner.network.checkpoint import Checkpoint, half_precision, load_checkpoint, save_checkpoint
from captioner.network.encoder import channels_last, native_bfloat16
from captioner.network.model import CaptionModel
from captioner.training.captions import Captions, mirror_table
from captioner.training.config import TrainConfig
from captioner.training.features import FeatureCache, cache_file, cache_folder, features_of
from captioner.training.finish import CHECKPOINT_NAME, finish
from captioner.training.interrupts import deferred_interrupt
from captioner.training.losses import concept_labels
from captioner.training.optimiser import Average, Optimiser
from captioner.training.ranks import Ranks, joined_ranks
from captioner.training.records import write_curves, write_metrics, write_samples
from captioner.training.stages import EndToEndStage, FrozenStage, Material, SelfCriticalStage, Stage
from captioner.training.start import Start, first_model
from captioner.training.state import STATE_NAME, Progress, damaged, load_state, save_state
from captioner.training.validation import Validation


def train(
    config: TrainConfig,
    split: Split,
    output: Path,
    start: Start,
    resume: bool = False,
    say: Callable[[str], None] = print,
    seconds_between_states: float = 120.0,
) -> Path:
    """Train a captioner and return the path of its checkpoint, in the run folder `output`.

    `say` gets the lines meant for people. With `resume` the run in `output` goes on, exactly as if it had never
    been interrupted; its state is saved after every epoch and every `seconds_between_states` within.
    Raises TrainingError, whose message says what is left, when training diverges, a picture cannot be read any
    more or the disk is full, when `output` holds a run already, and when another process of the run died;
    CheckpointError, CheckpointError or ImageError before anything is trained; KeyboardInterrupt once the state
    is saved. Of several processes that torchrun started (see `ranks`), the first one says and writes everything.
    """
    with joined_ranks() as ranks:
        if ranks.first and not resume and (output / STATE_NAME).exists():
            raise TrainingError(f"{output}: holds a run already: go on with it with --resume, or give another folder")
        run = _Run(config, split, output, start, ranks, say, seconds_between_states)
        del split  # and with it, where the caller kept nothing, the text of a million captions
        if resume:
            run.restore()
        else:
            run.begin()
        run.train()
        if ranks.first:
            run.finish()
        return output / CHECKPOINT_NAME


class _Run:
    """One training run: model, data, and where it stands."""

    def __init__(
        self,
        config: TrainConfig,
        split: Split,
        output: Path,
        start: Start,
        ranks: Ranks,
        say: Callable[[str], None],
        seconds_between_states: float,
    ) -> None:
        self.output, self.start, self.ranks = output, start, ranks
        self.say = say if ranks.first else _say_nothing
        self.seconds_between_states = seconds_between_states
        texts = [example.captions for example in split.train]
        torch.manual_seed(config.seed)
        self.config, self.model, self.vocabulary, self.preprocess, origin = first_model(config, texts, start)
        config = self.config
        self.origin = split.origin  # with the names of a random split, which a checkpoint has no use for
        self.provenance: dict[str, Any] = {
            "captioner": __version__,
            "data": _without_lists(split.origin),
            **origin,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "torchvision": version("torchvision"),
            },
        }
        concepts, labels = concept_labels(texts, self.vocabulary, config.concepts)
        # Before any optimiser sees the weights, since it keeps moments in the same layout.
        channels_last(self.model.to(ranks.device).encoder)
        self.material = Material(
            config=config,
            model=self.model,
            concept_head=_concept_head(self.model.encoder.feature_size, len(concepts)).to(ranks.device),
            vocabulary=self.vocabulary,
            preprocess=self.preprocess,
            paths=[str(example.path) for example in split.train],
            captions=Captions.of(texts, self.vocabulary),
            mirror=mirror_table(self.vocabulary),
            labels=labels,
            ranks=ranks,
            bfloat16=native_bfloat16(ranks.device.type),
            features=self._features,
        )
        self.stages: list[Stage] = [FrozenStage(self.material), EndToEndStage(self.material)]
        if config.scst_epochs:
            self.stages.append(SelfCriticalStage(self.material, texts))
        self.stages = [stage for stage in self.stages if stage.epochs]
        self.validation = Validation(split.validation, self.vocabulary, ranks)
        identity = [dataclasses.asdict(config), self.origin, origin]
        fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        if len(set(ranks.gather_texts([fingerprint], ranks.size))) > 1:
            raise TrainingError("the processes of this run were not given the same options, captions and first weights")
        self.progress = Progress(fingerprint, ranks.size)
        self.say(
            f"{len(split.train)} pictures with {len(self.material.captions)} captions to learn from, "
            f"{len(split.validation)} pictures to validate on, {len(self.vocabulary)} "
            f"{'words' if self.vocabulary.tokens == 'word' else 'characters'}; encoder {config.encoder} "
            f"from {origin['encoder_weights']['source']}"
        )

    # --- beginning, going on, ending ---

    def begin(self) -> None:
        """A new run: its folder, its plan, and the state before its first step."""
        if self.ranks.first:
            self.output.mkdir(parents=True, exist_ok=True)
            with replacing(self.output / "config.json") as file:
                content = {"train": dataclasses.asdict(self.config), **self.provenance, "data": self.origin}
                json.dump(content, file, indent=2, ensure_ascii=False)
        if not self.start.init:
            self.model.decoder.standardise(self._features().flatten(0, 1).to(self.ranks.device))
        self._say_plan()
        self._enter_stage()

    def restore(self) -> None:
        """Take up the state that the folder holds. Raises TrainingError when it is that of another run."""
        if self.ranks.first:
            progress, tensors = load_state(self.output)
            content = dataclasses.asdict(progress)
        else:
            content, tensors = {}, {}
        tensors, content = self.ranks.from_first(tensors, content)
        progress = Progress(**content)
        if progress.fingerprint != self.progress.fingerprint:
            raise TrainingError(
                f"{self.output}: the run there has other options or other data, and cannot go on with these: give "
                f"the same as then ({self.output / 'config.json'}), or another --output"
            )
        if progress.ranks != self.ranks.size:
            raise TrainingError(
                f"{self.output}: trained by {_processes(progress.ranks)} so far; {_processes(self.ranks.size)} would "
                "go on differently: start as many as then, with torchrun --nproc-per-node"
            )
        self.progress = progress
        if self.ranks.first:
            remove_temporaries(self.output)
        try:
            self._take_up(tensors)
        except (RuntimeError, KeyError, IndexError) as error:  # tensors missing, too many, or of other shapes
            raise damaged(self.output, error) from error

    def _take_up(self, tensors: dict[str, Tensor]) -> None:
        """Weights, moments and averages as they were. Raises an error for those of another network."""
        progress = self.progress

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.material.concept_head.load_state_dict(part("concepts."))
        if progress.stage < len(self.stages):
            self._set_up_stage()
            if progress.epoch > self.stage.epochs or progress.step > self.stage.steps:
                raise IndexError(f"step {progress.step} of epoch {progress.epoch}")
            done = progress.epoch * self.stage.steps + progress.step
            self.optimiser.restore(part("adamw."), done)
            self.average.restore(part("average."), done)
            self.say(f"going on with {self._label()}, step {progress.step}")
        elif progress.stage > len(self.stages) or not progress.rows:
            raise IndexError(f"stage {progress.stage}")

    def train(self) -> None:
        """All stages that are not done yet."""
        while self.progress.stage < len(self.stages):
            self.stage.prepare()
            while self.progress.epoch < self.stage.epochs and not self.progress.stopped_early:
                self._epoch()
            self._leave_stage()

    def finish(self) -> None:
        """Make the checkpoint what people get."""
        best, rows = self.progress.best_row, self.progress.rows
        made = {
            **self.provenance,
            "training": dataclasses.asdict(self.config),
            "epoch": rows[best]["epoch"],
            "chosen": "end of the stage" if best == len(rows) - 1 else "early stopping",
        }
        self.say(finish(self.output, self.validation.alone(), made))

    # --- stages ---

    @property
    def stage(self) -> Stage:
        return self.stages[self.progress.stage]

    def _set_up_stage(self) -> None:
        steps = self.stage.epochs * self.stage.steps
        config = self.config
        self.optimiser = Optimiser(self.stage.weights, config.weight_decay, config.gradient_clip, steps)
        self.average = Average(self.optimiser.named, config.average * steps)

    def _enter_stage(self) -> None:
        self.progress.epoch = self.progress.step = 0
        self.progress.loss_sum = self.progress.reward_sum = 0.0
        self.progress.stopped_early = False
        self.progress.entry, self.progress.stage_best, self.progress.since = self.progress.best, -1.0, 0
        if self.progress.stage < len(self.stages):
            self._set_up_stage()
        self._save_state()

    def _leave_stage(self) -> None:
        """Go on from what the checkpoint holds, which the end of this stage may or may not be."""
        if self.progress.best_row == len(self.progress.rows) - 1:
            with torch.no_grad():
                for name, weights in self.optimiser.named.items():
                    weights.copy_(self.average.averaged[name])
        else:
            if self.ranks.first:
                best = load_checkpoint(self.output / CHECKPOINT_NAME, self.ranks.device)
                self.model.load_state_dict(best.model.state_dict())
            self.ranks.same(self.model.state_dict().values())
        self.progress.stage += 1
        self._enter_stage()

    def _epoch(self) -> None:
        """Train on what is left of this epoch, validate, keep the checkpoint if it is the best, save the state."""
        progress, stage = self.progress, self.stage
        started = time.monotonic()
        generator = torch.Generator().manual_seed(self._seed("order"))
        batches = stage.batches(generator)[progress.step :]
        losses = stage.losses(batches, f"{self.config.seed} {stage.name} {progress.epoch}")
        saved = time.monotonic()
        self.model.train()
        with (
            tqdm(total=stage.steps, initial=progress.step, desc=self._label(), unit="step", **self._bar()) as bar,
            deferred_interrupt() as interrupted,
        ):
            for _ in batches:
                torch.manual_seed(self._seed(str(progress.step)))
                try:
                    step = next(losses)
                except (ImageError, OSError) as error:
                    self._save_state()
                    raise TrainingError(
                        f"{error}: it could be read when training began; put it back and go on with --resume"
                    ) from error
                value, reward = self.ranks.sum(step.captions, 0.0 if step.reward is None else step.reward)
                if not math.isfinite(value):
                    raise TrainingError(self._diverged(f"the loss became {value}"))
                # Their gradients are averaged, not summed.
                self.optimiser.step(step.total * self.ranks.size)
                self.average.update()
                progress.step += 1
                progress.loss_sum += value
                progress.reward_sum += reward
                bar.update()
                bar.set_postfix(loss=f"{value:.3f}", refresh=False)
                # All ranks stop after the same step.
                if any(self.ranks.sum(interrupted())):
                    self._save_state()
                    self.say(f"stopped in {self._label()}; the same command with --resume goes on from there")
                    raise KeyboardInterrupt
                if time.monotonic() - saved > self.seconds_between_states:
                    self._save_state()
                    saved = time.monotonic()
        scores = self._validate()
        progress.rows.append(
            {
                "epoch": len(progress.rows) + 1,
                "stage": stage.name,
                "train_loss": progress.loss_sum / stage.steps,
                **({"reward": progress.reward_sum / stage.steps} if progress.reward_sum else {}),
                **scores,
                "seconds": round(time.monotonic() - started, 1),
            }
        )
        progress.epoch += 1
        progress.step, progress.loss_sum, progress.reward_sum = 0, 0.0, 0.0
        self._keep_or_stop()
        self._record()
        self._save_state()

    def _keep_or_stop(self) -> None:
        """Replace the checkpoint when this epoch is the best, or the last of its stage."""
        progress, row = self.progress, self.progress.rows[-1]
        score = row[self.config.metric]
        progress.since = 0 if score > progress.stage_best else progress.since + 1
        progress.stage_best = max(score, progress.stage_best)
        progress.stopped_early = progress.since >= max(1, math.ceil(self.config.patience * self.stage.epochs))
        # At the end of a stage its learning rate is zero and its weights are averaged: an earlier epoch that scored a
        # little better did so by luck. A stage that made nothing better changes nothing.
        last = progress.epoch == self.stage.epochs and score >= progress.entry
        if score > progress.best or last:
            averaged = self._averaged()
            if self.ranks.first:
                save_checkpoint(self.output / CHECKPOINT_NAME, self._checkpoint(averaged))
            progress.best, progress.best_row = score, len(progress.rows) - 1
        mark = " *" if progress.best_row == len(progress.rows) - 1 else ""
        stop = f"; no better for {progress.since} epochs, this stage ends" if progress.stopped_early else ""
        reward = f"  reward {row['reward']:.3f}" if "reward" in row else ""
        self.say(
            f"epoch {row['epoch']}/{sum(stage.epochs for stage in self.stages)} {row['stage']}  "
            f"train loss {row['train_loss']:.3f}{reward}  val loss {row['loss']:.3f}  BLEU-4 {row['bleu_4']:.1f}  "
            f"CIDEr-D {row['cider']:.1f}  distinct {row['distinct']}/{row['images']}  {row['seconds']:.0f} s"
            f"{mark}{stop}"
        )

    # --- parts ---

    def _seed(self, purpose: str) -> int:
        """A seed of its own for each purpose, stage and epoch."""
        text = f"{self.config.seed} {self.stage.name} {self.progress.epoch} {purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")

    def _label(self) -> str:
        before = sum(stage.epochs for stage in self.stages[: self.progress.stage])
        total = sum(stage.epochs for stage in self.stages)
        return f"epoch {before + self.progress.epoch + 1}/{total} {self.stage.name}"

    def _checkpoint(self, model: CaptionModel) -> Checkpoint:
        return Checkpoint(model, self.vocabulary, self.preprocess, self.provenance)

    def _features(self) -> Tensor:
        """Features of all pictures and their mirror images by the encoder as it is now, (P, 2, F).

        In float32 whatever captions will be written in, so that what is learned does not depend on the processor; among
        seeds it made no difference that could be seen (docs/experiments.md).
        """
        encoder = self.model.encoder
        fast = PictureEncoder(encoder, self.preprocess, str(self.ranks.device), "float32")
        file = cache_file(encoder, self.preprocess, fast.precision, cache_folder())
        cache = FeatureCache(file, encoder.feature_size)
        paths = self.material.paths
        with tqdm(total=len(paths), desc="encoding", unit="picture", **self._bar()) as bar:
            return features_of(paths, fast, cache, bar.update, self.ranks)

    def _bar(self) -> dict[str, Any]:
        """How tqdm shows progress: on a terminal, for the first rank."""
        return {"leave": False, "disable": None if self.ranks.first else True}

    def _averaged(self) -> CaptionModel:
        """The averaged weights, rounded as a checkpoint stores them."""
        model = copy.deepcopy(self.model)
        averaged = {**self.model.state_dict(), **self._averaged_by_model_name()}
        model.load_state_dict(averaged)
        try:
            model.load_state_dict(half_precision(model))
        except ValueError as error:
            raise TrainingError(self._diverged(str(error))) from error
        return model.eval()

    def _averaged_by_model_name(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.average.averaged.items() if not name.startswith("concepts.")}

    def _validate(self) -> dict[str, Any]:
        """Scores of the averaged weights as a checkpoint stores them, through the code that users run."""
        return self.validation.scores(self._checkpoint(self._averaged()))

    def _record(self) -> None:
        if not self.ranks.first:
            return
        rows = self.progress.rows
        write_metrics(self.output / "metrics.jsonl", rows)
        write_curves(self.output / "curves.png", rows)
        write_samples(self.output / "samples.html", self.validation.shown(), rows)

    def _save_state(self) -> None:
        if not self.ranks.first:
            return
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"concepts.{name}": t for name, t in self.material.concept_head.state_dict().items()}
        if self.progress.stage < len(self.stages):
            tensors |= {f"adamw.{name}": t for name, t in self.optimiser.state().items()}
            tensors |= {f"average.{name}": t for name, t in self.average.averaged.items()}
        try:
            save_state(self.output, self.progress, tensors)
        except OSError as error:
            raise TrainingError(
                f"{self.output}: the state cannot be written ({error.strerror}): what was saved before is still there; "
                "make room, then go on with --resume"
            ) from error

    def _diverged(self, what: str) -> str:
        kept = f"; {self.output / CHECKPOINT_NAME} holds the best so far" if self.progress.best_row >= 0 else ""
        return f"{self._label()}: {what}, training diverged: begin again with a smaller learning rate{kept}"

    def _say_plan(self) -> None:
        """What is about to be done, and how long it will take, judged by a few steps of each stage."""
        total, parts = 0.0, []
        for stage in self.stages:
            seconds = stage.epochs * stage.steps * self._seconds_a_step(stage)
            total += seconds
            parts.append(f"{stage.epochs} epochs {stage.name} ({_duration(seconds)})")
        self.say(f"training {', then '.join(parts)}; on this machine some {_duration(total)} in all, and validation")

    def _seconds_a_step(self, stage: Stage) -> float:
        stage.prepare()
        self.model.train()
        batches = stage.batches(torch.Generator().manual_seed(0))[:4]
        losses = stage.losses(batches, "plan")
        times = []
        for _ in batches:
            begin = time.perf_counter()
            next(losses).total.backward()
            times.append(time.perf_counter() - begin)
        for parameters in (self.model.parameters(), self.material.concept_head.parameters()):
            for weights in parameters:
                weights.grad = None
        return min(times[1:] or times)  # the first one warms up


def _concept_head(feature_size: int, concepts: int) -> nn.Linear:
    with warnings.catch_warnings():
        # A set of few captions may have no frequent words; torch warns of a layer without outputs.
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(feature_size, concepts)


def _without_lists(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {name: _without_lists(value) for name, value in content.items() if not isinstance(value, list)}


def _say_nothing(line: str) -> None:
    """What ranks other than the first have to say."""


def _processes(number: int) -> str:
    return "one process" if number == 1 else f"{number} processes"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
