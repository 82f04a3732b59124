"""The three stages of training, and the loss of one step in each.

A stage gives the batches of an epoch in an order that the seed fixes, and turns them into losses one by one. All other
randomness comes from torch's global generator, which the loop seeds before every step, so that any step can be
repeated. With several ranks, each computes its share of a batch's loss; the sum is what one rank alone would compute.
Therefore every `_loss` is told how many tokens are to be predicted (`targets`) and how many pictures there are
(`number`) in the whole batch.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice

import torch
from PIL import Image, ImageEnhance
from torch import Tensor, nn

from captioner.inference.parallel import in_order
from captioner.inference.rules import Rules
from captioner.network.kernels import folded_for_training
from captioner.options import DecodeOptions
from captioner.pictures.load import load_image
from captioner.training.captions import batches_by_length
from captioner.training.losses import Losses, concept_loss, grouped_caption_loss
from captioner.training.optimiser import Named
from captioner.training.rewards import Rewards, advantages, sample_captions, self_critical_loss
from captioner.training.start import Material


class Stage:
    """One stage. This base class has what two of the three share: batches of pictures in random order."""

    name: str

    def __init__(self, material: Material, epochs: int | None, examples: int, batch_size: int) -> None:
        self.m, self.epochs, self.batch_size = material, epochs or 0, batch_size
        self.steps = math.ceil(examples / batch_size)  # of an epoch

    @property
    def weights(self) -> list[tuple[Named, float]]:
        """The groups of named weights that are trained, each with its peak learning rate."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Do what takes long and is needed before the first step."""

    def batches(self, generator: torch.Generator) -> list[Tensor]:
        """The batches of an epoch, in a random order."""
        return list(torch.randperm(len(self.m.paths), generator=generator).split(self.batch_size))

    def losses(self, batches: Sequence[Tensor], seed: str) -> Iterator[Losses]:
        """The losses of batches, each computed when the iterator is advanced. `seed` fixes augmentation."""
        raise NotImplementedError


class FrozenStage(Stage):
    """Trains the decoder alone, on features that are computed once."""

    name = "decoder"

    def __init__(self, material: Material) -> None:
        config = material.config
        super().__init__(material, config.epochs, len(material.captions), config.batch_size)

    @property
    def weights(self) -> list[tuple[Named, float]]:
        return [(_named("decoder", self.m.model.decoder), self.m.config.learning_rate)]

    def prepare(self) -> None:
        self._features = self.m.features()

    def batches(self, generator: torch.Generator) -> list[Tensor]:
        return batches_by_length(self.m.captions.lengths(), self.batch_size, generator)

    def losses(self, batches: Sequence[Tensor], seed: str) -> Iterator[Losses]:
        objective = self.m.ranks.objective([self.m.model.decoder], self._loss)
        for batch in batches:
            mirrored = torch.rand(len(batch)) < 0.5
            self.m.ranks.own_randomness()
            mine, weight = self.m.share(batch)
            [loss] = objective(batch[mine], mirrored[mine], weight, self.m.captions.targets(batch))
            yield Losses(loss, loss.detach())

    def _loss(self, rows: Tensor, mirrored: Tensor, weight: float, targets: int) -> tuple[Tensor]:
        """The loss of captions by number, (B,), with the pictures mirrored where `mirrored`, (B,)."""
        features = self._features[self.m.captions.picture[rows].long(), mirrored.long()].to(self.m.device)
        tokens, owner = self.m.tokens(rows, mirrored), torch.arange(len(rows))
        with self.m.autocast():
            loss = grouped_caption_loss(self.m.model.decoder, features, tokens, owner, self.m.config.label_smoothing)
        return (weight * loss / targets,)


class EndToEndStage(Stage):
    """Trains encoder and decoder on augmented pictures, each with all its captions."""

    name = "end to end"

    def __init__(self, material: Material) -> None:
        config = material.config
        super().__init__(material, config.finetune_epochs, len(material.paths), config.finetune_batch_size)
        self._encoder = folded_for_training(material.model.encoder)

    @property
    def weights(self) -> list[tuple[Named, float]]:
        decoder = {**_named("decoder", self.m.model.decoder), **_named("concepts", self.m.concept_head)}
        encoder = _named("encoder", self.m.model.encoder)
        return [(decoder, self.m.config.finetune_learning_rate), (encoder, self.m.config.encoder_learning_rate)]

    def losses(self, batches: Sequence[Tensor], seed: str) -> Iterator[Losses]:
        def read(picture: int) -> tuple[Tensor, bool]:
            rng = random.Random(f"{seed} {picture}")
            mirrored = rng.random() < 0.5
            image = augmented(load_image(self.m.paths[picture]), mirrored, self.m.preprocess.size, rng)
            return self.m.preprocess.pixels(image), mirrored

        networks = [self.m.model.decoder, self.m.model.encoder, self.m.concept_head]
        objective = self.m.ranks.objective(networks, self._loss)
        shares = [self.m.share(batch) for batch in batches]
        parts = [batch[mine].tolist() for batch, (mine, _) in zip(batches, shares, strict=True)]
        with ThreadPoolExecutor(self.m.free_cpus()) as pool:
            ahead = in_order(pool, read, chain.from_iterable(parts), 3 * self.batch_size)
            for batch, (_, weight), part in zip(batches, shares, parts, strict=True):
                self.m.ranks.own_randomness()
                ready = list(islice(ahead, len(part)))
                total, captions = objective(
                    torch.tensor(part),
                    torch.stack([pixels for pixels, _ in ready]),
                    torch.tensor([mirrored for _, mirrored in ready]),
                    weight,
                    self.m.captions.targets(self.m.captions.of_pictures(batch)[0]),
                    len(batch),
                )
                yield Losses(total, captions.detach())

    def _loss(
        self, pictures: Tensor, pixels: Tensor, mirrored: Tensor, weight: float, targets: int, number: int
    ) -> tuple[Tensor, Tensor]:
        """The losses of pictures by number, (P,), with their pixels (P, 3, S, S) uint8, `mirrored` or not, (P,)."""
        config = self.m.config
        rows, owner = self.m.captions.of_pictures(pictures)
        with self.m.autocast():
            features = self._encoder(self.m.preprocess.normalise(pixels.to(self.m.device))).float()
            tokens = self.m.tokens(rows, mirrored[owner])
            loss = grouped_caption_loss(self.m.model.decoder, features, tokens, owner, config.label_smoothing)
        captions = weight * loss / targets
        labels = self.m.labels[pictures].to(self.m.device)
        concepts = weight * concept_loss(self.m.concept_head, features, labels) / number if labels.shape[1] else 0.0
        return captions + config.concept_weight * concepts, captions


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

    name = "self-critical"

    def __init__(self, material: Material, texts: Sequence[Sequence[str]]) -> None:
        config = material.config
        super().__init__(material, config.scst_epochs, len(material.paths), config.finetune_batch_size)
        self._texts = texts

    @property
    def weights(self) -> list[tuple[Named, float]]:
        return [(_named("decoder", self.m.model.decoder), self.m.config.scst_learning_rate)]

    def prepare(self) -> None:
        self._features = self.m.features()
        self.rewards = Rewards(self._texts, self.m.vocabulary)
        options = DecodeOptions("sample", max_length=int(self.m.captions.lengths().max()))
        self._rules = Rules.of(options, self.m.vocabulary)

    def losses(self, batches: Sequence[Tensor], seed: str) -> Iterator[Losses]:
        objective = self.m.ranks.objective([self.m.model.decoder], self._loss)
        for batch in batches:
            self.m.ranks.own_randomness()
            mine, weight = self.m.share(batch)
            rows, _ = self.m.captions.of_pictures(batch)
            total, captions, reward = objective(batch[mine], weight, self.m.captions.targets(rows), len(batch))
            yield Losses(total, captions.detach(), reward)

    def _loss(self, pictures: Tensor, weight: float, targets: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """The losses and the mean reward of pictures by number, (P,)."""
        config, decoder = self.m.config, self.m.model.decoder
        features = self._features[pictures, 0].to(self.m.device)
        several = features.repeat_interleave(config.scst_samples, 0)
        # Without dropout: captions are sampled from the network as it will be used.
        decoder.eval()
        # In an autocast of its own: torch 2.6 keeps rounded weights until the end of an autocast, and these, rounded
        # without gradients, would get no gradients in what follows.
        with self.m.autocast():
            tokens = sample_captions(decoder, several, self._rules)
        rewards = self.rewards.of(pictures.repeat_interleave(config.scst_samples).tolist(), tokens)
        rewards = rewards.view(len(pictures), config.scst_samples)
        with self.m.autocast():
            reward_loss = self_critical_loss(decoder, several, tokens, advantages(rewards).flatten().to(self.m.device))
            decoder.train()
            rows, owner = self.m.captions.of_pictures(pictures)
            loss = grouped_caption_loss(decoder, features, self.m.captions.batch(rows), owner, config.label_smoothing)
        captions, share = weight * loss / targets, weight * len(pictures) / number
        return share * reward_loss + config.scst_cross_entropy * captions, captions, share * rewards.mean()


def _named(prefix: str, network: nn.Module) -> dict[str, nn.Parameter]:
    return {f"{prefix}.{name}": weights for name, weights in network.named_parameters()}


def all_stages(material: Material, texts: Sequence[Sequence[str]]) -> list[Stage]:
    """The stages of a run, without those of no epochs; `texts[p]` are the captions of picture p."""
    stages = (FrozenStage(material), EndToEndStage(material), SelfCriticalStage(material, texts))
    return [stage for stage in stages if stage.epochs]


def plan(stages: Sequence[Stage], material: Material) -> str:
    """A line about what is going to be done and how long it will take, judged by a few steps of each stage."""
    seconds = [stage.epochs * stage.steps * _seconds_a_step(stage, material) for stage in stages]
    parts = [f"{s.epochs} epochs {s.name} ({_duration(t)})" for s, t in zip(stages, seconds, strict=True)]
    return f"training {', then '.join(parts)}; about {_duration(sum(seconds))} in all on this machine, and validation"


def _seconds_a_step(stage: Stage, material: Material) -> float:
    stage.prepare()
    material.model.train()
    batches = stage.batches(torch.Generator().manual_seed(0))[:4]
    losses = stage.losses(batches, "plan")
    times = []
    for _ in batches:
        begin = time.perf_counter()
        next(losses).total.backward()
        times.append(time.perf_counter() - begin)
    for weights in (*material.model.parameters(), *material.concept_head.parameters()):
        weights.grad = None
    return min(times[1:] or times)  # the first step is slower


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
