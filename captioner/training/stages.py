"""The stages of training that write captions, and the loss of one step in each; the last stage is in `matching.py`.

A stage gives the batches of an epoch in an order that the seed fixes, and turns them into losses one by one. All other
randomness comes from torch's global generator, which the loop seeds before every step, so that any step can be
repeated. With several ranks, each computes its share of a batch's loss; the sum is what one rank alone would compute.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.errors import counted
from captioner.inference.parallel import in_order
from captioner.inference.progress import duration
from captioner.inference.rules import Rules
from captioner.machine import give_back_freed_memory
from captioner.network.checkpoint import Checkpoint
from captioner.network.convolutions import folded_for_training
from captioner.network.encoder import as_batch, normalise
from captioner.network.words import CLASSES
from captioner.options import DecodeOptions
from captioner.pictures.load import load_image
from captioner.training.captions import batches_by_length
from captioner.training.known import Known
from captioner.training.losses import Losses, grouped_caption_loss
from captioner.training.optimiser import Named
from captioner.training.rewards import Rewards, advantages, sample_captions, self_critical_loss
from captioner.training.start import Material
from captioner.training.validation import Validation
from captioner.training.words import word_loss

_REHEARSED = 1000  # pictures


class Stage:
    """One stage. What the stages share is here: most train the decoder alone, and most on batches of pictures."""

    name: str
    prefix: str  # of its options
    # Gives what a step minimises, the cross-entropy for the log and the mean reward, where there is one. It takes this
    # rank's part of a batch, its weight, how many tokens are to be predicted (`targets`) and how many examples there
    # are (`number`) in the whole batch, and `_inputs`.
    _loss: Callable[..., tuple[Tensor, ...]]

    def __init__(self, material: Material) -> None:
        self.m, config, decoder = material, material.config, material.model.decoder
        self.metric: str = config.metric  # the score that tells which of its epochs is the best
        self.epochs: int = getattr(config, f"{self.prefix}epochs") or 0
        self.batch_size = config.finetune_batch_size
        self.steps = math.ceil(len(material.paths) / self.batch_size)  # of an epoch
        self.networks: list[nn.Module] = [decoder]  # that are trained
        self.rate: float = getattr(config, f"{self.prefix}learning_rate")
        # Its word predictor is trained with the encoder, or fitted to features.
        own = {name: weights for name, weights in named("decoder", decoder).items() if ".words." not in name}
        self.weights: list[tuple[Named, float]] = [(own, self.rate)]  # in groups, each with its peak learning rate

    def enter(self) -> None:
        """Let the model have the parts that belong to this stage."""

    def prepare(self) -> None:
        """Do what takes long and is needed before the first step."""
        self._features = self.m.features()
        self._known = Known.of(self.m, self._features)

    def rehearse(self) -> None:
        """Do what is needed before steps whose time tells how long others will take."""
        self.prepare()

    def leave(self) -> None:
        """Let go of what `prepare` or `rehearse` made, which may be gigabytes."""
        for name in ("_features", "_known", "rewards", "_classes"):
            self.__dict__.pop(name, None)
        give_back_freed_memory()  # the next stage needs blocks of other sizes: both would be held

    def batches(self, generator: torch.Generator) -> list[Tensor]:
        """The batches of an epoch, in a random order."""
        return list(torch.randperm(len(self.m.paths), generator=generator).split(self.batch_size))

    def losses(self, batches: Sequence[Tensor], seed: str) -> Iterator[Losses]:
        """The losses of batches, each computed when the iterator is advanced. `seed` fixes augmentation."""
        objective = self.m.ranks.objective(self.networks, self._loss)
        shares = [self.m.ranks.share(len(batch)) for batch in batches]
        # Where a small batch leaves nothing for this rank, it computes the first example with a weight of 0.
        places = [share if len(share) else share.new_zeros(1) for share in shares]
        inputs = self._inputs(batches, places, seed)
        for batch, share, mine, more in zip(batches, shares, places, inputs, strict=True):
            self.m.ranks.own_randomness()
            targets, weight = self.m.captions.targets(self._captions(batch)), float(len(share) > 0)
            total, captions, *reward = objective(batch[mine], weight, targets, len(batch), *more)
            yield Losses(total, captions.detach(), *reward)

    def scores(self, validation: Validation, checkpoint: Checkpoint) -> dict[str, Any]:
        """Validation scores, `metric` among them."""
        return validation.scores(checkpoint)

    def told(self, row: dict[str, Any]) -> str:
        """What people are told of the scores of an epoch."""
        captions = f"BLEU-4 {row['bleu_4']:.1f}  CIDEr-D {row['cider']:.1f}  distinct {row['distinct']}/{row['images']}"
        return f"val loss {row['loss']:.3f}  {captions}"

    def _captions(self, batch: Tensor) -> Tensor:
        """The numbers of the captions of a batch."""
        return self.m.captions.of_pictures(batch)[0]

    def _inputs(self, batches: Sequence[Tensor], places: Sequence[Tensor], seed: str) -> Iterator[tuple[Any, ...]]:
        """What else `_loss` needs to know of this rank's places in each batch."""
        return repeat((), len(batches))


class FrozenStage(Stage):
    """Trains the decoder alone, on features that are computed once, in batches of captions.

    Some captions may have no picture. Then the feature is the mean of all pictures, which says nothing, and the words
    are a stand-in for those that the predictor would find.
    """

    name, prefix = "decoder", ""

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.batch_size = material.config.batch_size
        without = len(material.captions) - material.paired
        share = material.config.text_share
        self._without = min(without, round(material.paired * share / (1 - share)))  # of an epoch
        self.steps = math.ceil((material.paired + self._without) / self.batch_size)

    def batches(self, generator: torch.Generator) -> list[Tensor]:
        paired = self.m.paired
        rows = torch.cat([torch.arange(paired), self._rows_without_pictures(generator)])
        lengths = self.m.captions.lengths()[rows]
        return [rows[batch] for batch in batches_by_length(lengths, self.batch_size, generator)]

    def _rows_without_pictures(self, generator: torch.Generator) -> Tensor:
        """Captions without pictures for an epoch, as many of each source as there are, up to its share."""
        rows = torch.arange(self.m.paired, len(self.m.captions))
        rows = rows[torch.randperm(len(rows), generator=generator)]
        source = self.m.sources[self.m.captions.picture[rows].long()]
        # In a random order, the n-th caption of each source comes before the (n + 1)-th of any.
        order = torch.empty_like(rows)
        for number in source.unique():
            mine = source == number
            order[mine] = torch.arange(int(mine.sum()))
        return rows[order.argsort(stable=True)][: self._without]

    def _captions(self, batch: Tensor) -> Tensor:
        return batch

    def _inputs(self, batches: Sequence[Tensor], places: Sequence[Tensor], seed: str) -> Iterator[tuple[Any, ...]]:
        for batch, mine in zip(batches, places, strict=True):
            mirrored = torch.rand(len(batch)) < 0.5
            known = self._known.of_captions(batch, mirrored) if self._known else {}
            yield mirrored[mine], {name: part[mine].to(self.m.ranks.device) for name, part in known.items()}

    def _loss(self, rows: Tensor, weight: float, targets: int, number: int, *inputs: Any) -> tuple[Tensor, ...]:
        """The loss of captions by number, (B,), with the pictures mirrored where `mirrored`, (B,), and what is known
        beside their features.
        """
        (mirrored, known), pictures = inputs, self.m.captions.picture[rows].long()
        decoder, there = self.m.model.decoder, pictures < len(self.m.paths)
        features = decoder.feature_mean.repeat(len(rows), 1)
        features[there] = self._features[pictures[there], mirrored[there].long()].to(features)
        tokens, owner = self.m.tokens(rows, mirrored & there), torch.arange(len(rows))
        with self.m.autocast():
            loss = grouped_caption_loss(decoder, features, tokens, owner, self.m.config.label_smoothing, **known)
        loss = weight * loss / targets
        return loss, loss


class EndToEndStage(Stage):
    """Trains encoder and decoder on augmented pictures, each with all its captions."""

    name, prefix = "end to end", "finetune_"
    _classes: Tensor | None = None  # (P, 2, 1000) float16, see `prepare`

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        encoder, self._words = material.model.encoder, material.model.decoder.words
        self._encoder = folded_for_training(encoder)
        self.networks.append(encoder)
        self.weights.append((named("decoder.words", self._words), self.rate))
        self.weights.append((named("encoder", encoder), material.config.encoder_learning_rate))
        # Before a state is restored, because the classifier was made for the encoder's first weights.
        keeps = self.epochs and self._words.names and material.config.keep_weight
        self._first = material.features() if keeps else None

    def enter(self) -> None:
        """Take the matcher of a checkpoint out of the model, since it knows another encoder."""
        self.m.model.matcher, self.m.model.config = None, dataclasses.replace(self.m.model.config, match_size=0)

    def rehearse(self) -> None:
        """Any answers of the classifier take the same time."""
        if self._first is not None:
            self._classes = self._first.new_zeros(1, 2, CLASSES).expand(len(self._first), -1, -1)

    @torch.no_grad()
    def prepare(self) -> None:
        """Ask the classifier of ImageNet about all pictures and their mirror images.

        There are no features, because they change with the encoder.
        """
        if self._first is not None:
            self._classes = self._first.new_empty(*self._first.shape[:2], CLASSES)
            for part, answers in zip(self._first.split(1000), self._classes.split(1000), strict=True):
                answers.copy_(self._words.classifier(part.to(self.m.ranks.device).float()).softmax(-1))
        self._first = self.m.computed = self.m.fitted = None  # gigabytes for a large set

    def _inputs(self, batches: Sequence[Tensor], places: Sequence[Tensor], seed: str) -> Iterator[tuple[Any, ...]]:
        def read(picture: int) -> tuple[NDArray[np.uint8], bool]:
            rng = random.Random(f"{seed} {picture}")
            mirrored = rng.random() < 0.5
            image = augmented(load_image(self.m.paths[picture]), mirrored, self.m.preprocess.size, rng)
            return self.m.preprocess.pixels(image), mirrored

        parts = [batch[mine].tolist() for batch, mine in zip(batches, places, strict=True)]
        with ThreadPoolExecutor(self.m.free_cpus()) as pool:
            ahead = in_order(pool, read, chain.from_iterable(parts), 3 * self.batch_size)
            for part in parts:
                pixels, mirrored = zip(*islice(ahead, len(part)), strict=True)
                yield as_batch(pixels), torch.tensor(mirrored)

    def _loss(self, pictures: Tensor, weight: float, targets: int, number: int, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The losses of pictures by number, (P,), with their pixels (P, 3, S, S) uint8, mirrored or not, (P,)."""
        config, (pixels, mirrored) = self.m.config, inputs
        rows, owner = self.m.captions.of_pictures(pictures)
        with self.m.autocast():
            features = self._encoder(normalise(self.m.preprocess, pixels.to(self.m.ranks.device))).float()
            tokens = self.m.tokens(rows, mirrored[owner])
            loss = grouped_caption_loss(self.m.model.decoder, features, tokens, owner, config.label_smoothing)
        captions, total = weight * loss / targets, torch.zeros((), device=features.device)
        if learned := self._words.size - self._words.names:
            labels = self.m.labels[pictures, :learned]
            total = total + config.concept_weight * word_loss(self._words.learned, features, labels)
        if self._classes is not None:  # Li and Hoiem 2016, "Learning without forgetting"
            logits, wanted = self._words.classifier(features), self._classes[pictures, mirrored.long()].to(features)
            total = total + config.keep_weight * F.cross_entropy(logits, wanted, reduction="sum")
        return captions + weight * total / number, captions


def augmented(image: Image.Image, mirrored: bool, size: int, rng: random.Random) -> Image.Image:
    """A random crop resized to the square, with slightly different light, mirrored or not.

    The crop has 70 to 100 % of the width and of the height, so that it keeps nearly everything that captions mention.
    Hues do not change, because captions name colours.
    """
    width, height = (side * rng.uniform(0.7, 1.0) for side in image.size)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    crop = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        crop = enhance(crop).enhance(rng.uniform(0.75, 1.25))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop


class SelfCriticalStage(Stage):
    """Trains the decoder alone, on the CIDEr-D of captions that it samples, and on cross-entropy."""

    name, prefix = "self-critical", "scst_"

    def __init__(self, material: Material, texts: Sequence[Sequence[str]]) -> None:
        super().__init__(material)
        self._texts = texts

    def rehearse(self) -> None:
        """Rewards by a few captions take the same time. Samples end where captions do on average: those of a network
        that has not learned to end them would be longer.
        """
        self._prepare(int(self.m.captions.lengths().float().mean()), _REHEARSED)

    def prepare(self) -> None:
        self._prepare(int(self.m.captions.lengths().max()))

    def _prepare(self, longest: int, counted: int | None = None) -> None:
        super().prepare()
        self.rewards = Rewards(self._texts, self.m.vocabulary, counted)
        # It learns from the rewards not to repeat itself.
        options = DecodeOptions("sample", max_length=longest, no_repeat_ngram=0)
        self._rules = Rules.of(options, self.m.vocabulary)

    def _loss(self, pictures: Tensor, weight: float, targets: int, number: int) -> tuple[Tensor, ...]:
        """The losses and the mean reward of pictures by number, (P,)."""
        config, decoder, device = self.m.config, self.m.model.decoder, self.m.ranks.device
        features = self._features[pictures, 0].to(device).float()
        known = self._known.of_pictures(pictures, device) if self._known else {}
        several = features.repeat_interleave(config.scst_samples, 0)
        of_samples = {name: part.repeat_interleave(config.scst_samples, 0) for name, part in known.items()}
        # Without dropout: captions are sampled from the network as it will be used.
        decoder.eval()
        # In an autocast of its own: torch 2.6 keeps rounded weights until the end of an autocast, and these, rounded
        # without gradients, would get no gradients in what follows.
        with self.m.autocast():
            tokens = sample_captions(decoder, several, self._rules, **of_samples)
        rewards = self.rewards.of(pictures.repeat_interleave(config.scst_samples).tolist(), tokens)
        rewards = rewards.view(len(pictures), config.scst_samples)
        with self.m.autocast():
            benefit = advantages(rewards).flatten().to(device)
            reward_loss = self_critical_loss(decoder, several, tokens, benefit, **of_samples)
            decoder.train()
            rows, owner = self.m.captions.of_pictures(pictures)
            captions = self.m.captions.batch(rows)
            loss = grouped_caption_loss(decoder, features, captions, owner, config.label_smoothing, **known)
        captions, share = weight * loss / targets, weight * len(pictures) / number
        return share * reward_loss + config.scst_cross_entropy * captions, captions, share * rewards.mean()


def named(prefix: str, network: nn.Module) -> Named:
    """The weights of a part of the model that can be trained, by their names in the model."""
    return {f"{prefix}.{name}": weights for name, weights in network.named_parameters() if weights.requires_grad}


def plan(stages: Sequence[Stage], material: Material) -> str:
    """A line about what is going to be done and how long it will take, judged by a few steps of each stage."""
    seconds = [stage.epochs * stage.steps * _seconds_a_step(stage, material) for stage in stages]
    parts = [f"{counted(s.epochs, 'epoch')} {s.name} ({duration(t)})" for s, t in zip(stages, seconds, strict=True)]
    return f"training {', then '.join(parts)}; about {duration(sum(seconds))} in all on this machine, and validation"


def _seconds_a_step(stage: Stage, material: Material) -> float:
    stage.rehearse()
    material.model.train()
    batches = stage.batches(torch.Generator().manual_seed(0))[:3]
    losses = stage.losses(batches, "plan")
    times = []
    for _ in batches:
        begin = time.perf_counter()
        next(losses).total.backward()
        times.append(time.perf_counter() - begin)
    material.model.zero_grad()
    stage.leave()
    return min(times[1:] or times)  # the first step is slower
