"""A training run: one stage after the other, validated after every epoch, and resumable at any moment."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from captioner.data.captions import read_captions
from captioner.data.splits import Split, choose_split
from captioner.data.texts import Texts, read_texts
from captioner.errors import ImageError, OptionError, OutputError, TrainingError, counted
from captioner.files import AnyPath, remove_temporaries, replacing
from captioner.machine import give_back_freed_memory, keep_freed_memory
from captioner.network.checkpoint import Checkpoint, load_checkpoint, rounded, save_checkpoint
from captioner.training import folder
from captioner.training.config import Given, TrainConfig, read_run
from captioner.training.finish import finish
from captioner.training.first import Start
from captioner.training.matching import MatchStage
from captioner.training.optimiser import Average, Optimiser
from captioner.training.ranks import joined_ranks
from captioner.training.records import cannot_draw, write_curves, write_metrics, write_samples
from captioner.training.stages import EndToEndStage, FrozenStage, SelfCriticalStage, Stage, plan
from captioner.training.start import Material, notes
from captioner.training.validation import Validation


def train(
    captions: AnyPath | None,
    images: AnyPath | None,
    output: AnyPath,
    config: TrainConfig | None = None,
    *,
    train_list: AnyPath | None = None,
    val_list: AnyPath | None = None,
    init: AnyPath | None = None,
    encoder_weights: AnyPath | None = None,
    text: AnyPath | None = None,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Train a captioner on pictures with captions, and return the path of its checkpoint.

    `captions` is a file or folder in any layout that `captioner data check` knows, `images` the folder of its pictures,
    and `output` the folder for everything that the run writes. `train_list` and `val_list` are files with names of
    pictures; by default the captions file decides, or a random tenth is for validation. The encoder starts from
    `encoder_weights`, a torchvision state dict or a checkpoint; by default from a shipped checkpoint with the same
    encoder, or else from torchvision's weights. `text` is a file of captions without pictures (see `data.texts`), which
    teach the decoder to speak of what no training picture shows. With `init`, a checkpoint or the name of a shipped
    one, training continues from there, with the new words of these captions. `resume` continues the run in `output`
    exactly as if it had not been interrupted. What is None is then as the folder of the run says; all else must be as
    it was. `say` is called with messages.

    From now on the process keeps memory that it frees, which is faster. A run uses as many threads as processors are
    free, or as OMP_NUM_THREADS says. Of several processes of torchrun, the first writes files and messages.

    Raises OptionError, DataError, CheckpointError, ImageError or OutputError before anything is trained; TrainingError
    when training diverges, a picture has disappeared, the disk is full or another process of the run has died; and
    KeyboardInterrupt, once the state is saved.
    """
    given = Given(captions, images, train_list, val_list, init, encoder_weights, text)
    if resume and (Path(output) / folder.CONFIG_NAME).is_file():
        options, known = read_run(Path(output))
        config, given = config or TrainConfig(**options), given.completed(known)
    if not (given.captions and given.images):
        if resume:
            raise folder.nothing_there(Path(output))
        raise OptionError("training needs captions (--captions FILE) and images (--images DIR)")
    config = config or TrainConfig()
    start = Start.choose(config, given.init, given.encoder_weights)
    learn, validate = (Path(names) if names else None for names in (given.train_list, given.val_list))
    keep_freed_memory()
    # The split is not in a variable, which would hold the text of all captions until training ends.
    return train_on(
        choose_split(read_captions(Path(given.captions)), Path(given.images), learn, validate, config.seed),
        *(Path(output), config, start, resume, say),
        texts=read_texts(Path(given.text)) if given.text else None,
        given=given,
    )


def train_on(
    split: Split,
    output: Path,
    config: TrainConfig,
    start: Start,
    resume: bool = False,
    say: Callable[[str], None] = print,
    seconds_between_states: float = 120.0,
    texts: Texts | None = None,
    given: Given | None = None,
) -> Path:
    """Train on a split. The folder of the run will say what was `given`.

    The state is saved after every epoch, and every `seconds_between_states` within an epoch."""
    with joined_ranks() as ranks, ExitStack() as at_the_end:
        at_the_end.callback(torch.set_num_threads, torch.get_num_threads())
        if ranks.first and not resume and (output / folder.STATE_NAME).exists():
            raise OutputError(f"{output}: holds a run already: continue it with --resume, or give another folder")
        say = say if ranks.first else lambda line: None
        material = Material.of(config, split, start, ranks, texts)
        own = [example.captions for example in split.train]
        every: list[Stage] = [FrozenStage(material), EndToEndStage(material), SelfCriticalStage(material, own)]
        stages = [stage for stage in [*every, MatchStage(material)] if stage.epochs]
        validation = Validation(split.validation, material.vocabulary, ranks)
        for line in notes(split, material) if ranks.first else ():
            say(line)
        if why := cannot_draw():
            say(f"note: {why}")
        del split, own, texts
        run = _Run(material, stages, validation, output, say, seconds_between_states, given or Given())
        at_the_end.push(run.say_how_to_go_on)
        (run.restore if resume else run.begin)()
        standing = run.standing
        while standing.stage < len(stages):
            stage = stages[standing.stage]
            stage.prepare()
            while standing.epoch < stage.epochs and not standing.stopped_early:
                started = time.monotonic()
                run.train_epoch(stage)
                give_back_freed_memory()  # validation needs blocks of other sizes: both would be held
                run.validate_epoch(stage, started)
                run.save()
                give_back_freed_memory()
            run.leave_stage()
        if ranks.first:
            made = {**material.checkpoint(material.model).provenance, "training": asdict(material.config)}
            made["epoch"] = standing.rows[standing.best_row]["epoch"] if standing.best_row >= 0 else 0
            made["chosen"] = "end of the stage" if made["epoch"] == len(standing.rows) else "early stopping"
            with ranks.progress_bar(1, "calibrating", "checkpoint"):
                said = finish(output / folder.CHECKPOINT_NAME, validation.alone, made)
            say(said)
    return output / folder.CHECKPOINT_NAME


@dataclass
class _Run:
    """Where a run stands, and its parts: beginning, resuming, an epoch, the end of a stage."""

    material: Material
    stages: list[Stage]
    validation: Validation
    output: Path
    say: Callable[[str], None]
    seconds_between_states: float
    given: Given

    def __post_init__(self) -> None:
        self.ranks, self.config = self.material.ranks, self.material.config
        self.epochs = sum(stage.epochs for stage in self.stages)
        fingerprint = self.material.fingerprint()
        if len(set(self.ranks.gather_texts([fingerprint], self.ranks.size))) > 1:
            raise TrainingError("the processes of this run were not given the same options, captions and first weights")
        self._warned = -1  # the stage in which a warning was given
        self.standing = folder.Standing(fingerprint, self.ranks.size, self.material.threads())

    def begin(self) -> None:
        """Begin a new run: its folder, its plan, and the state before its first step."""
        threads, most = self.standing.threads, torch.get_num_threads()
        if threads < most:
            self.say(f"other programs are busy: computing with {threads} of {most} threads is faster")
        torch.set_num_threads(threads)
        if self.ranks.first:
            with replacing(self.output / folder.CONFIG_NAME) as file:
                made = {"train": asdict(self.config), "given": self.given.as_paths(), **self.material.provenance}
                json.dump(made, file, indent=2, ensure_ascii=False)
        if "init" not in self.material.provenance:
            self.material.model.decoder.standardise(self.material.features().flatten(0, 1).to(self.ranks.device))
        self.say(plan(self.stages, self.material))
        self._enter_stage()

    def restore(self) -> None:
        """Take up the state in the folder. Raises TrainingError if it is damaged, OutputError if it is another's."""
        found, tensors = folder.load_state(self.output) if self.ranks.first else (self.standing, {})
        tensors, content = self.ranks.from_first(tensors, asdict(found))
        now, standing = self.standing, folder.Standing(**content)
        folder.refuse_other(self.output, standing, now)
        if standing.threads != now.threads:
            threads = counted(standing.threads, "thread")
            self.say(f"computing with {threads}, as when this run began: the number affects rounding")
        torch.set_num_threads(standing.threads)
        if self.ranks.first:
            remove_temporaries(self.output)
        self.standing = standing
        groups: dict[str, dict[str, Any]] = {"model": {}, "adamw": {}, "average": {}}
        try:
            for name, tensor in tensors.items():
                group, _, rest = name.partition(".")
                groups[group][rest] = tensor
            for stage in self.stages[: standing.stage + 1]:
                stage.enter()
            self.material.model.load_state_dict(groups["model"])
            if standing.stage < len(self.stages):
                self._set_up_stage()
                steps = self.stages[standing.stage].steps
                if standing.epoch > self.stages[standing.stage].epochs or standing.step > steps:
                    raise IndexError(f"step {standing.step} of epoch {standing.epoch}")
                done = standing.epoch * steps + standing.step
                self.optimiser.restore(groups["adamw"], done)
                self.average.restore(groups["average"], done)
                self.say(f"resuming {self._label()}, step {standing.step}")
            elif standing.stage > len(self.stages) or not standing.rows:
                raise IndexError(f"stage {standing.stage}")
        except (RuntimeError, KeyError, IndexError) as error:  # tensors are missing, unknown, or of other shapes
            raise folder.damaged(self.output, error) from error

    def save(self) -> None:
        """Write the state from which `restore` continues."""
        if not self.ranks.first:
            return
        groups = {"model": self.material.model.state_dict()}
        if self.standing.stage < len(self.stages):
            groups |= {"adamw": self.optimiser.state(), "average": self.average.averaged}
        tensors = {f"{group}.{name}": tensor for group, named in groups.items() for name, tensor in named.items()}
        try:
            folder.save_state(self.output, self.standing, tensors)
        except OSError as error:
            raise TrainingError(
                f"{self.output}: the state cannot be written ({error.strerror}), and the state before it is kept: make "
                "room, then continue with --resume"
            ) from error

    def train_epoch(self, stage: Stage) -> None:
        """Do the steps that are left of this epoch."""
        standing = self.standing
        batches = stage.batches(torch.Generator().manual_seed(self._seed("order")))[standing.step :]
        losses = stage.losses(batches, f"{self.config.seed} {stage.name} {standing.epoch}")
        saved = time.monotonic()
        self.material.model.train()
        bar = self.ranks.progress_bar(stage.steps, self._label(), "step", standing.step)
        with bar, _deferred_interrupts() as interrupts:
            for _ in batches:
                torch.manual_seed(self._seed(str(standing.step)))
                try:
                    step = next(losses)
                except (ImageError, OSError) as error:
                    self.save()
                    raise TrainingError(
                        f"{error}: it could be read when training began; put it back, then continue with --resume"
                    ) from error
                loss, reward, asked = self.ranks.sum(step.captions, step.reward, bool(interrupts))
                if not math.isfinite(loss):
                    raise self._diverged(f"the loss became {loss}")
                if asked:  # of any rank; the step is done again after resuming
                    self._stop()
                self.optimiser.step(step.total * self.ranks.size)  # gradients are averaged over ranks, not summed
                self.average.update()
                standing.step += 1
                standing.loss_sum += loss
                standing.reward_sum += reward
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                if time.monotonic() - saved > self.seconds_between_states:
                    self.save()
                    saved = time.monotonic()
            if any(self.ranks.sum(bool(interrupts))):
                self._stop()

    def _stop(self) -> None:
        self.save()
        raise KeyboardInterrupt

    def say_how_to_go_on(self, raised: type[BaseException] | None, *_: object) -> None:
        """To be called when the run ends, as an `__exit__`: after an interrupt, say how to continue."""
        if raised is KeyboardInterrupt and (self.output / folder.STATE_NAME).exists():
            where = self._label() if self.standing.stage < len(self.stages) else "calibration"
            go_on = f"captioner train --resume --output {shlex.quote(str(self.output))}"
            self.say(f"stopped in {where}; to continue from there: {go_on}")

    def validate_epoch(self, stage: Stage, started: float) -> None:
        """Score the averaged weights as a checkpoint stores them, and keep them if `Standing.end_epoch` says so."""
        standing = self.standing
        checkpoint = self._as_stored(self.average.averaged)
        row = {
            "epoch": len(standing.rows) + 1,
            "stage": stage.name,
            "train_loss": standing.loss_sum / stage.steps,
            **({"reward": standing.reward_sum / stage.steps} if standing.reward_sum else {}),
            **stage.scores(self.validation, checkpoint),
            "seconds": round(time.monotonic() - started, 1),
        }
        leads = row[stage.metric] > standing.best
        is_best = standing.end_epoch(row, row[stage.metric], self.config.patience, stage.epochs)
        kept = ", best so far" if leads else ", saved as the last of its stage" if is_best else ""
        stop = f"; no better for {counted(standing.since, 'epoch')}, this stage ends" if standing.stopped_early else ""
        reward = f"  reward {row['reward']:.3f}" if "reward" in row else ""
        self.say(
            f"epoch {row['epoch']}/{self.epochs} {stage.name}  train loss {row['train_loss']:.3f}{reward}  "
            f"{stage.told(row)}  {row['seconds']:.0f} s{kept}{stop}"
        )
        same = stage.metric == self.config.metric and self._warned != standing.stage
        if same and (2 * standing.epoch >= stage.epochs or standing.stopped_early):
            for line in self.validation.collapsed(row) if self.ranks.first else ():
                self._warned = standing.stage
                self.say(f"warning: captions have collapsed: {line}")
        if self.ranks.first:
            if is_best:
                save_checkpoint(self.output / folder.CHECKPOINT_NAME, checkpoint)
            write_metrics(self.output / "metrics.jsonl", standing.rows)
            write_curves(self.output / "curves.png", standing.rows)
            write_samples(self.output / "samples.html", self.validation.shown, standing.rows)

    def leave_stage(self) -> None:
        """Continue from what the checkpoint holds, which may or may not be the end of this stage."""
        model = self.material.model
        if self.standing.best_row == len(self.standing.rows) - 1:
            with torch.no_grad():
                for name, weights in self.optimiser.named.items():
                    weights.copy_(self.average.averaged[name])
        else:
            if self.ranks.first:
                best = load_checkpoint(self.output / folder.CHECKPOINT_NAME, self.ranks.device)
                model.load_state_dict(best.model.state_dict())
            self.ranks.same(model.state_dict().values())
        self.stages[self.standing.stage].leave()
        self.standing.stage += 1
        self._enter_stage()

    def _enter_stage(self) -> None:
        self.standing.enter_stage()
        if self.standing.stage < len(self.stages):
            self._compare_anew(self.stages[self.standing.stage])
            self._set_up_stage()
        self.save()

    def _compare_anew(self, stage: Stage) -> None:
        """Begin a stage with another metric: the best so far is what a checkpoint brought, if anything."""
        if stage.metric == self.config.metric:
            return
        standing, best = self.standing, self.output / folder.CHECKPOINT_NAME
        standing.best = standing.entry = -1.0
        if self.material.model.matcher is not None:
            checkpoint = self._as_stored({})
            standing.best = standing.entry = stage.scores(self.validation, checkpoint)[stage.metric]
            if self.ranks.first and not best.exists():
                save_checkpoint(best, checkpoint)

    def _set_up_stage(self) -> None:
        stage, config = self.stages[self.standing.stage], self.config
        stage.enter()
        steps = stage.epochs * stage.steps
        self.optimiser = Optimiser(stage.weights, config.weight_decay, config.gradient_clip, steps)
        self.average = Average(self.optimiser.named, config.average * steps)

    def _as_stored(self, averaged: Mapping[str, torch.Tensor]) -> Checkpoint:
        """A checkpoint of the model, with the averaged weights that there are, rounded as its file will hold them."""
        model = copy.deepcopy(self.material.model)
        model.load_state_dict({**model.state_dict(), **averaged})
        try:
            model.load_state_dict(rounded(model))
        except ValueError as error:
            raise self._diverged(str(error)) from error
        return self.material.checkpoint(model.eval())

    def _diverged(self, what: str) -> TrainingError:
        kept = f"; {self.output / folder.CHECKPOINT_NAME} holds the best so far" if self.standing.best_row >= 0 else ""
        return TrainingError(
            f"{self._label()}: {what}, training diverged: begin again with a smaller learning rate{kept}"
        )

    def _seed(self, purpose: str) -> int:
        """A seed for each purpose, stage and epoch."""
        text = f"{self.config.seed} {self.stages[self.standing.stage].name} {self.standing.epoch} {purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")

    def _label(self) -> str:
        epoch = sum(stage.epochs for stage in self.stages[: self.standing.stage]) + self.standing.epoch + 1
        return f"epoch {epoch}/{self.epochs} {self.stages[self.standing.stage].name}"


@contextmanager
def _deferred_interrupts() -> Iterator[list[int]]:
    """Within the block, a first Ctrl-C or SIGTERM is only put into the given list. A second one interrupts.

    Python delivers signals to the main thread only; in any other thread the list stays empty.
    """
    caught: list[int] = []
    with ExitStack() as handlers:

        def catch(number: int, _: object) -> None:
            caught.append(number)
            handlers.close()  # which puts back those of before

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handlers.callback(signal.signal, number, signal.signal(number, catch))
        yield caught
