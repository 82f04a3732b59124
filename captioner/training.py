"""Training: the decoder alone on features computed once, then encoder and decoder end to end.

The run folder gets `config.json`, `metrics.jsonl` (one line an epoch) and `best.safetensors`, the checkpoint with
the best free-running validation BLEU-4.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from captioner import __version__
from captioner.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from captioner.data import Example
from captioner.encoder_weights import load_encoder_weights
from captioner.errors import UserError
from captioner.evaluation import score_captions
from captioner.files import replacing
from captioner.images import Preprocess, load_image
from captioner.inference import Captioner
from captioner.model import CaptionModel, Decoder, ModelConfig, channels_last
from captioner.options import DecodeOptions, TrainConfig
from captioner.precision import native_bfloat16
from captioner.vocab import END, PAD, START, Vocabulary, tokenise

CHECKPOINT_NAME = "best.safetensors"
GROUP_SIZE = 64  # captions that go through the decoder at once


class TrainingError(UserError):
    """Training cannot go on; the message says why and what is left."""


@dataclass(frozen=True)
class Split:
    """The examples of a run and what is known of their origin, for the provenance."""

    train: list[Example]
    validation: list[Example]
    origin: dict[str, Any]


@dataclass(frozen=True)
class Captions:
    """All captions of a split, in flat arrays: caption i is `ids[starts[i] : starts[i + 1]]`, of `picture[i]`."""

    ids: Tensor  # int32, `<start>` and `<end>` included
    starts: Tensor  # int64, (N + 1,)
    picture: Tensor  # int64, (N,)

    @classmethod
    def of(cls, examples: Sequence[Example], vocabulary: Vocabulary) -> Captions:
        ids, starts, picture = [], [0], []
        for index, example in enumerate(examples):
            for caption in example.captions:
                ids.append(torch.tensor([START, *vocabulary.encode(caption), END], dtype=torch.int32))
                starts.append(starts[-1] + len(ids[-1]))
                picture.append(index)
        return cls(torch.cat(ids), torch.tensor(starts), torch.tensor(picture))

    def lengths(self) -> Tensor:
        return self.starts.diff()

    def batch(self, rows: Tensor) -> Tensor:
        """The captions `rows`, (B,), padded to the longest of them: (B, T) int64"""
        parts = [self.ids[self.starts[row] : self.starts[row + 1]].long() for row in rows.tolist()]
        return nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=PAD)


def batches_by_length(lengths: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """A random order of captions in batches of about equal length, so that little of a batch is padding.

    The captions are shuffled, sorted by length within stretches of 40 batches, cut, and the batches are shuffled.
    """
    order = torch.randperm(len(lengths), generator=generator)
    stretches = order.split(40 * batch_size)
    batches = [b for s in stretches for b in s[lengths[s].argsort(stable=True)].split(batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


@dataclass(frozen=True)
class Losses:
    """What a batch is trained on: cross-entropy a token of the captions, and the weighted loss of the concepts, ()"""

    captions: Tensor
    concepts: Tensor


def caption_loss(decoder: Decoder, features: Tensor, tokens: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Teacher-forced cross-entropy of captions (B, T), given features (B, F): the sum over all real tokens, ()"""
    logits = decoder(features, tokens[:, :-1])  # (B, T - 1, V)
    return F.cross_entropy(
        logits.flatten(0, 1).float(),
        tokens[:, 1:].flatten(),
        ignore_index=PAD,
        reduction="sum",
        label_smoothing=label_smoothing,
    )


def real_targets(tokens: Tensor) -> int:
    """How many tokens of (B, T) are predicted: all but `<start>` and padding."""
    return int((tokens[:, 1:] != PAD).sum())


def mirror_table(vocabulary: Vocabulary) -> Tensor:
    """For every token what it becomes when the picture is mirrored: left and right change places, (V,) int64"""
    table = torch.arange(len(vocabulary))
    for here, there in (("left", "right"), ("左", "右")):
        if here in vocabulary.words and there in vocabulary.words:
            a, b = vocabulary.words.index(here), vocabulary.words.index(there)
            table[a], table[b] = b, a
    return table


def concept_labels(examples: Sequence[Example], number: int) -> tuple[list[str], Tensor]:
    """Frequent words, and which picture has each in one of its captions: (N, C) float, 0 or 1.

    Predicting them from the feature is the "high-level concepts" of Wu et al. 2016 ("What value do explicit high
    level concepts have in vision to language problems?"). Words in the captions of more than half of the pictures
    say nothing of a picture and are left out.
    """
    words = [{word for caption in example.captions for word in tokenise(caption)} for example in examples]
    counts = Counter(word for those in words for word in those)
    rare_enough = [word for word in counts if counts[word] <= len(examples) / 2]
    concepts = sorted(rare_enough, key=lambda word: (-counts[word], word))[:number]
    column = {word: index for index, word in enumerate(concepts)}
    labels = torch.zeros(len(examples), len(concepts))
    for row, those in enumerate(words):
        labels[row, [column[word] for word in those if word in column]] = 1.0
    return concepts, labels


def augmented(image: Image.Image, mirrored: bool, size: int, rng: random.Random) -> Image.Image:
    """A random part of at least 3/4 of the picture, squeezed to the square, mirrored or not.

    Width and height of the part vary independently: everything that the captions speak of is nearly always in it.
    """
    width, height = (side * rng.uniform(0.75**0.5, 1.0) for side in image.size)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    part = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else part


def train(
    config: TrainConfig,
    split: Split,
    output: Path,
    encoder_weights: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Train a captioner and return the path of its checkpoint, in the run folder `output`.

    `say` gets the lines of progress meant for people. Raises EncoderWeightsError, DataError, ImageError before
    anything is trained, TrainingError when training diverges, OSError when the folder cannot be written.
    """
    started = time.monotonic()
    run = _Run(config, split, output, encoder_weights, say)
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / "config.json") as file:
        json.dump({"train": dataclasses.asdict(config), **run.provenance}, file, indent=2, ensure_ascii=False)
    (output / "metrics.jsonl").write_text("", encoding="utf-8")
    run.train_decoder()
    run.train_end_to_end()
    return run.finish(time.monotonic() - started)


class _Run:
    """One training run: model, data and the best score so far."""

    def __init__(
        self,
        config: TrainConfig,
        split: Split,
        output: Path,
        weights: Path | None,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.split, self.output, self.say = config, split, output, say
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        captions = [caption for example in split.train for caption in example.captions]
        self.vocabulary = Vocabulary.build(captions, config.minimum_count)
        self.preprocess = Preprocess(config.image_size)
        self.model = CaptionModel.create(
            ModelConfig(
                config.encoder,
                len(self.vocabulary),
                config.hidden_size,
                config.embedding_size,
                config.dropout,
            )
        )
        source = load_encoder_weights(self.model.encoder, config.encoder, weights)
        self.provenance: dict[str, Any] = {
            "captioner": __version__,
            "data": split.origin,
            "encoder_weights": source,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "torchvision": version("torchvision"),
            },
        }
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)
        self.bfloat16 = native_bfloat16(self.device.type)
        self.captions = Captions.of(split.train, self.vocabulary)
        self.validation_captions = Captions.of(split.validation, self.vocabulary)
        self.mirror = mirror_table(self.vocabulary)
        concepts, self.labels = concept_labels(split.train, config.concepts)
        self.concept_head = nn.Linear(self.model.encoder.feature_size, len(concepts)).to(self.device)
        self.epoch = 0
        self.best = -math.inf
        self.best_epoch = 0
        say(
            f"{len(split.train)} pictures with {len(captions)} captions to learn from, "
            f"{len(split.validation)} pictures to validate on, {len(self.vocabulary)} words; "
            f"encoder {config.encoder} from {source['source']}"
        )

    # --- the decoder alone ---

    def train_decoder(self) -> None:
        """Stage 1: the encoder is frozen, so the features of all pictures are computed once."""
        if not self.config.epochs:
            return
        features = self._features(self.split.train)  # (N, 2, F)
        self.model.decoder.standardise(features.flatten(0, 1))
        parameters = [*self.model.decoder.parameters(), *self.concept_head.parameters()]
        groups = [{"params": parameters, "lr": self.config.learning_rate}]
        steps = math.ceil(len(self.captions.picture) / self.config.batch_size)
        optimiser = _Optimiser(groups, self.config, steps * self.config.epochs)
        for _ in range(self.config.epochs):
            self._epoch(optimiser, self._frozen_batches(features), steps)

    def _features(self, examples: Sequence[Example]) -> Tensor:
        """Features of pictures and of their mirror images, (N, 2, F)."""
        captioner = Captioner(self._checkpoint(), str(self.device))
        parts = []
        paths = [example.path for example in examples]
        with tqdm(total=len(paths), desc="encoding", unit="picture", leave=False, disable=None) as bar:
            for start in range(0, len(paths), 64):
                images = [load_image(path) for path in paths[start : start + 64]]
                pixels = torch.stack([self.preprocess.pixels(image) for image in images])
                both = [captioner.encode_pixels(pixels), captioner.encode_pixels(pixels.flip(-1))]
                parts.append(torch.stack(both, 1))
                bar.update(len(images))
        return torch.cat(parts)

    def _frozen_batches(self, features: Tensor) -> Iterator[Losses]:
        """The losses of one batch of captions after the other, over precomputed features."""
        for rows in batches_by_length(self.captions.lengths(), self.config.batch_size, self.generator):
            pictures = self.captions.picture[rows]
            mirrored = torch.rand(len(rows), generator=self.generator) < 0.5
            tokens = self._tokens(rows, mirrored)
            yield self._losses(features[pictures, mirrored.long()], tokens, torch.arange(len(rows)), pictures)

    # --- encoder and decoder together ---

    def train_end_to_end(self) -> None:
        """Stage 2: the encoder learns too, on augmented pictures, each with all its captions."""
        config = self.config
        if not config.finetune_epochs:
            return
        if not config.epochs:
            # Every tenth picture tells mean and spread of the features well enough.
            self.model.decoder.standardise(self._features(self.split.train[::10]).flatten(0, 1))
        channels_last(self.model.encoder)
        decoder = [*self.model.decoder.parameters(), *self.concept_head.parameters()]
        groups = [
            {"params": decoder, "lr": config.finetune_learning_rate},
            {"params": list(self.model.encoder.parameters()), "lr": config.encoder_learning_rate},
        ]
        steps = math.ceil(len(self.split.train) / config.finetune_batch_size)
        optimiser = _Optimiser(groups, config, steps * config.finetune_epochs)
        for _ in range(config.finetune_epochs):
            self._epoch(optimiser, self._picture_batches(), steps)

    def _picture_batches(self) -> Iterator[Losses]:
        """The losses of one batch of augmented pictures after the other."""
        order = torch.randperm(len(self.split.train), generator=self.generator)
        batches = order.split(self.config.finetune_batch_size)
        with ThreadPoolExecutor(2) as pool:
            upcoming = (pool.map(self._augmented_pixels, batch.tolist()) for batch in batches)
            waiting = next(upcoming)
            for batch in batches:
                ready, waiting = list(waiting), next(upcoming, iter(()))
                pixels = torch.stack([pixel for pixel, _ in ready]).to(self.device)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                    features = self.model.encoder(self.preprocess.normalise(pixels)).float()
                flipped = torch.tensor([mirrored for _, mirrored in ready])
                position = {int(picture): index for index, picture in enumerate(batch)}
                rows = torch.isin(self.captions.picture, batch).nonzero().squeeze(1)
                owner = torch.tensor([position[int(picture)] for picture in self.captions.picture[rows]])
                tokens = self._tokens(rows, flipped[owner])
                yield self._losses(features, tokens, owner, batch)

    def _augmented_pixels(self, index: int) -> tuple[Tensor, bool]:
        rng = random.Random(f"{self.config.seed} {self.epoch} {index}")
        mirrored = rng.random() < 0.5
        image = load_image(self.split.train[index].path)
        return self.preprocess.pixels(augmented(image, mirrored, self.preprocess.size, rng)), mirrored

    # --- common to both ---

    def _tokens(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """The captions `rows` (B,), those of mirrored pictures with left and right changed: (B, T)"""
        tokens = self.captions.batch(rows)
        return torch.where(mirrored[:, None], self.mirror[tokens], tokens)

    def _losses(self, features: Tensor, tokens: Tensor, owner: Tensor, pictures: Tensor) -> Losses:
        """Losses of captions (B, T) whose pictures are `features[owner]`; `pictures` are their indices, (P,).

        The captions go through the decoder in groups of about equal length, so that little is spent on padding.
        """
        lengths = (tokens != PAD).sum(1)
        total = features.new_zeros(())
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            for group in lengths.argsort(stable=True).split(GROUP_SIZE):
                part = tokens[group, : int(lengths[group].max())].to(self.device)
                total = total + caption_loss(
                    self.model.decoder, features[owner[group]], part, self.config.label_smoothing
                )
        concepts = features.new_zeros(())
        if self.labels.shape[1]:
            labels = self.labels[pictures].to(self.device)
            logits = self.concept_head(features)
            concepts = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(features)
        return Losses(total / real_targets(tokens), self.config.concept_weight * concepts)

    def _epoch(self, optimiser: _Optimiser, batches: Iterable[Losses], steps: int) -> None:
        """Train on every batch once, validate, keep the checkpoint if it is the best."""
        self.epoch += 1
        label = f"epoch {self.epoch}/{self.config.epochs + self.config.finetune_epochs}"
        started, summed = time.monotonic(), 0.0
        self.model.train()
        with tqdm(batches, total=steps, desc=label, unit="step", leave=False, disable=None) as bar:
            for losses in bar:
                value = losses.captions.item()
                if not math.isfinite(value):
                    kept = f"; {self.output / CHECKPOINT_NAME} holds the best so far" if self.best_epoch else ""
                    raise TrainingError(f"{label}: the loss became {value}: try a smaller learning rate{kept}")
                optimiser.step(losses.captions + losses.concepts)
                summed += value
                bar.set_postfix(loss=f"{value:.3f}", refresh=False)
        scores = self._validate()
        row = {
            "epoch": self.epoch,
            "train_loss": summed / steps,
            **scores,
            "seconds": round(time.monotonic() - started, 1),
        }
        with (self.output / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        best = "  *" if self.best_epoch == self.epoch else ""
        self.say(
            f"{label}  train loss {row['train_loss']:.3f}  val loss {scores['loss']:.3f}  "
            f"val BLEU-4 {scores['bleu_4']:.1f}  distinct {scores['distinct']}/{scores['images']}  "
            f"{row['seconds']:.0f} s{best}"
        )

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self.model, self.vocabulary, self.preprocess, self.provenance)

    def _validate(self) -> dict[str, Any]:
        """Scores of the weights as a checkpoint stores them, through the same code that users run."""
        candidate = self.output / ".candidate.safetensors"
        try:
            save_checkpoint(candidate, self._checkpoint())
        except ValueError as error:
            raise TrainingError(str(error)) from error
        scores = self.scores_of(candidate)
        if scores["bleu_4"] > self.best:
            self.best, self.best_epoch = scores["bleu_4"], self.epoch
            candidate.replace(self.output / CHECKPOINT_NAME)
        else:
            candidate.unlink()
        return scores

    def scores_of(self, path: Path) -> dict[str, Any]:
        """Loss and free-running scores of a checkpoint on the validation pictures, default decoding options."""
        checkpoint = load_checkpoint(path, self.device)
        captioner = Captioner(checkpoint, str(self.device))
        features = captioner.encode(example.path for example in self.split.validation)
        captions = captioner.caption_features(features)
        references = [example.captions for example in self.split.validation]
        scores = score_captions([caption.text for caption in captions], references)
        loss, count = 0.0, 0
        with torch.inference_mode():
            for rows in torch.arange(len(self.validation_captions.picture)).split(256):
                tokens = self.validation_captions.batch(rows).to(self.device)
                pictures = self.validation_captions.picture[rows]
                loss += float(caption_loss(checkpoint.model.decoder, features[pictures], tokens))
                count += real_targets(tokens)
        return {"loss": loss / count, **scores}

    def finish(self, seconds: float) -> Path:
        """Write the scores of exactly the stored weights into the best checkpoint."""
        path = self.output / CHECKPOINT_NAME
        checkpoint = load_checkpoint(path)
        options = DecodeOptions()
        checkpoint.provenance = {
            **self.provenance,
            "training": dataclasses.asdict(self.config),
            "epoch": self.best_epoch,
            "seconds": round(seconds),
            "validation": {**self.scores_of(path), "decoding": options.used()},
        }
        save_checkpoint(path, checkpoint)
        return path


class _Optimiser:
    """AdamW with gradient clipping and a learning rate that warms up, then falls to zero along a cosine."""

    def __init__(self, groups: list[dict[str, Any]], config: TrainConfig, steps: int) -> None:
        split_groups = []
        for group in groups:
            # Only matrices decay: pulling biases and BatchNorm's scales to zero regularises nothing.
            matrices = [p for p in group["params"] if p.ndim > 1]
            vectors = [p for p in group["params"] if p.ndim <= 1]
            split_groups.append({**group, "params": matrices, "weight_decay": config.weight_decay})
            split_groups.append({**group, "params": vectors, "weight_decay": 0.0})
        self.parameters = [p for group in groups for p in group["params"]]
        self.adamw = torch.optim.AdamW(split_groups, fused=True)
        self.clip = config.gradient_clip
        warm_up = max(1, round(0.03 * steps))

        def factor(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adamw, factor)

    def step(self, loss: Tensor) -> None:
        self.adamw.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.adamw.step()
        self.schedule.step()
