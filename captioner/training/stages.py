"""The three stages of training, and the loss of one step in each.

A stage gives the batches of an epoch in an order that the seed fixes, and turns them into losses one by one. All other
randomness comes from torch's global generator, which the loop seeds before every step, so that any step can be
repeated. With several ranks, each computes its share of a batch's loss; the sum is what one rank alone would compute.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, repeat

import torch
from PIL import Image, ImageEnhance
from torch import Tensor, nn

from captioner.errors import counted
from captioner.inference.parallel import in_order
from captioner.inference.progress import duration
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
    """One stage. What the stages share is here: most train the decoder alone, and most on batches of pictures."""

    name: str
    prefix: str  # of its options
    # Gives what a step minimises, the cross-entropy for the log and the mean reward, where there is one. It takes this
    # rank's part of a batch, its weight, how many tokens are to be predicted (`targets`) and how many examples there
    # are (`number`) in the whole batch, and `_inputs`.
    _loss: Callable[..., tuple[Tensor, ...]]

    def __init__(self, material: Material) -> None:
        self.m, config, decoder = material, material.config, material.model.decoder
        self.epochs: int = getattr(config, f"{self.prefix}epochs") or 0
        self.batch_size = config.finetune_batch_size
        self.steps = math.ceil(len(material.paths) / self.batch_size)  # of an epoch
        self.networks: list[nn.Module] = [decoder]  # that are trained
        self.rate: float = getattr(config, f"{self.prefix}learning_rate")
        self.weights = [(_named("decoder", decoder), self.rate)]  # in groups, each with its peak learning rate

    def prepare(self) -> None:
        """Do what takes long and is needed before the first step."""
        self._features = self.m.features()

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

    def _captions(self, batch: Tensor) -> Tensor:
        """The numbers of the captions of a batch."""
        return self.m.captions.of_pictures(batch)[0]

    def _inputs(self, batches: Sequence[Tensor], places: Sequence[Tensor], seed: str) -> Iterator[tuple[Tensor, ...]]:
        """What else `_loss` needs to know of this rank's places in each batch."""
        return repeat((), len(batches))


class FrozenStage(Stage):
    """Trains the decoder alone, on features that are computed once, in batches of captions."""

    name, prefix = "decoder", ""

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.batch_size = material.config.batch_size
        self.steps = math.ceil(len(material.captions) / self.batch_size)

    def batches(self, generator: torch.Generator) -> list[Tensor]:
        return batches_by_length(self.m.captions.lengths(), self.batch_size, generator)

    def _captions(self, batch: Tensor) -> Tensor:
        return batch

    def _inputs(self, batches: Sequence[Tensor], places: Sequence[Tensor], seed: str) -> Iterator[tuple[Tensor, ...]]:
        return (((torch.rand(len(batch)) < 0.5)[mine],) for batch, mine in zip(batches, places, strict=True))

    def _loss(self, rows: Tensor, weight: float, targets: int, number: int, mirrored: Tensor) -> tuple[Tensor, ...]:
        """The loss of captions by number, (B,), with the pictures mirrored where `mirrored`, (B,)."""
        features = self._features[self.m.captions.picture[rows].long(), mirrored.long()].to(self.m.ranks.device)
        tokens, owner = self.m.tokens(rows, mirrored), torch.arange(len(rows))
        with self.m.autocast():
            loss = grouped_caption_loss(self.m.model.decoder, features, tokens, owner, self.m.config.label_smoothing)
        loss = weight * loss / targets
        return loss, loss


class EndToEndStage(Stage):
    """Trains encoder and decoder on augmented pictures, each with all its captions."""

    name, prefix = "end to end", "finetune_"

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        encoder, concepts = material.model.encoder, material.concept_head
        self._encoder = folded_for_training(encoder)
        self.networks += [encoder, concepts]
        self.weights.append((_named("concepts", concepts), self.rate))
        self.weights.append((_named("encoder", encoder), material.config.encoder_learning_rate))

    def prepare(self) -> None:
        """Nothing, because features change with the encoder."""

    def _inputs(self, batches: Sequence[Tensor], places: Sequence[Tensor], seed: str) -> Iterator[tuple[Tensor, ...]]:
        def read(picture: int) -> tuple[Tensor, bool]:
            rng = random.Random(f"{seed} {picture}")
            mirrored = rng.random() < 0.5
            image = augmented(load_image(self.m.paths[picture]), mirrored, self.m.preprocess.size, rng)
            return self.m.preprocess.pixels(image), mirrored

        parts = [batch[mine].tolist() for batch, mine in zip(batches, places, strict=True)]
        with ThreadPoolExecutor(self.m.free_cpus()) as pool:
            ahead = in_order(pool, read, chain.from_iterable(parts), 3 * self.batch_size)
            for part in parts:
                pixels, mirrored = zip(*islice(ahead, len(part)), strict=True)
                yield torch.stack(pixels), torch.tensor(mirrored)

    def _loss(self, pictures: Tensor, weight: float, targets: int, number: int, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The losses of pictures by number, (P,), with their pixels (P, 3, S, S) uint8, mirrored or not, (P,)."""
        config, (pixels, mirrored) = self.m.config, inputs
        rows, owner = self.m.captions.of_pictures(pictures)
        with self.m.autocast():
            features = self._encoder(self.m.preprocess.normalise(pixels.to(self.m.ranks.device))).float()
            tokens = self.m.tokens(rows, mirrored[owner])
            loss = grouped_caption_loss(self.m.model.decoder, features, tokens, owner, config.label_smoothing)
        captions = weight * loss / targets
        labels = self.m.labels[pictures].to(self.m.ranks.device)
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

    name, prefix = "self-critical", "scst_"

    def __init__(self, material: Material, texts: Sequence[Sequence[str]]) -> None:
        super().__init__(material)
        self._texts = texts

    def prepare(self) -> None:
        super().prepare()
        self.rewards = Rewards(self._texts, self.m.vocabulary)
        options = DecodeOptions("sample", max_length=int(self.m.captions.lengths().max()))
        self._rules = Rules.of(options, self.m.vocabulary)

    def _loss(self, pictures: Tensor, weight: float, targets: int, number: int) -> tuple[Tensor, ...]:
        """The losses and the mean reward of pictures by number, (P,)."""
        config, decoder, device = self.m.config, self.m.model.decoder, self.m.ranks.device
        features = self._features[pictures, 0].to(device)
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
            reward_loss = self_critical_loss(decoder, several, tokens, advantages(rewards).flatten().to(device))
            decoder.train()
            rows, owner = self.m.captions.of_pictures(pictures)
            loss = grouped_caption_loss(decoder, features, self.m.captions.batch(rows), owner, config.label_smoothing)
        captions, share = weight * loss / targets, weight * len(pictures) / number
        return share * reward_loss + config.scst_cross_entropy * captions, captions, share * rewards.mean()


def _named(prefix: str, network: nn.Module) -> Named:
    return {f"{prefix}.{name}": weights for name, weights in network.named_parameters()}


def plan(stages: Sequence[Stage], material: Material) -> str:
    """A line about what is going to be done and how long it will take, judged by a few steps of each stage."""
    seconds = [stage.epochs * stage.steps * _seconds_a_step(stage, material) for stage in stages]
    parts = [f"{counted(s.epochs, 'epoch')} {s.name} ({duration(t)})" for s, t in zip(stages, seconds, strict=True)]
    return f"training {', then '.join(parts)}; about {duration(sum(seconds))} in all on this machine, and validation"


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
    material.networks().zero_grad()
    return min(times[1:] or times)  # the first step is slower
