"""The three stages of training: what one step of each is trained on.

A stage gives batches in an order that its seed and the epoch fix, and turns them into losses one by one. All other
randomness is torch's global generator, which the loop seeds anew before every step, so that any step can be done
again. Where several ranks train, each computes its share of a batch's loss: their sum is the loss of one rank alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

import torch
from torch import Tensor, nn

from captioner.inference.parallel import in_order
from captioner.inference.rules import Rules
from captioner.machine import available_cpus
from captioner.network.kernels import folded_for_training
from captioner.network.model import CaptionModel
from captioner.network.preprocess import Preprocess
from captioner.options import DecodeOptions
from captioner.pictures.load import load_image
from captioner.training.augmentation import augmented
from captioner.training.captions import Captions, batches_by_length
from captioner.training.config import TrainConfig
from captioner.training.losses import Losses, concept_loss, grouped_caption_loss
from captioner.training.ranks import Ranks
from captioner.training.rewards import Rewards, advantages, sample_captions, self_critical_loss
from captioner.vocab import Vocabulary


@dataclass
class Material:
    """What all stages work on: the network, and the captions and pictures to learn from."""

    config: TrainConfig
    model: CaptionModel
    concept_head: nn.Linear
    vocabulary: Vocabulary
    preprocess: Preprocess
    paths: list[str]  # of the pictures
    captions: Captions
    mirror: Tensor  # (V,), see `mirror_table`
    labels: Tensor  # (P, C) bool, see `concept_labels`
    ranks: Ranks
    bfloat16: bool
    features: Callable[[], Tensor]  # of all pictures and their mirror images, (P, 2, F)

    def tokens(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """The captions `rows` (B,), those of mirrored pictures with left and right changed: (B, T)"""
        tokens = self.captions.batch(rows)
        return torch.where(mirrored[:, None], self.mirror[tokens], tokens)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.ranks.device

    def autocast(self) -> torch.autocast:
        """bfloat16 where the processor computes in it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def share(self, batch: Tensor) -> tuple[Tensor, float]:
        """The places in a batch that this rank works on, and the weight of what comes out: 1, or 0 where a small
        batch leaves nothing for this rank, which then does its first example again.
        """
        places = self.ranks.share(len(batch))
        return (places, 1.0) if len(places) else (torch.zeros(1, dtype=torch.long), 0.0)


class Stage(Protocol):
    """One stage. `weights` are trained, each group with its peak learning rate."""

    name: str
    epochs: int
    steps: int  # an epoch

    @property
    def weights(self) -> list[tuple[Mapping[str, nn.Parameter], float]]:
        """Named weights with their peak learning rate."""

    def prepare(self) -> None:
        """Whatever takes long and is needed before the first step."""

    def batches(self, generator: torch.Generator) -> list[Tensor]:
        """The batches of an epoch, in a random order."""

    def losses(self, batches: Sequence[Tensor], seed: str) -> Iterator[Losses]:
        """The losses of some of them, each computed when it is asked for. `seed` fixes augmentation."""


class FrozenStage:
    """The decoder alone, on features that are computed once."""

    name = "decoder"

    def __init__(self, material: Material) -> None:
        self._m = material
        self.epochs = material.config.epochs
        self.steps = math.ceil(len(material.captions) / material.config.batch_size)
        self._features = torch.empty(0)

    @property
    def weights(self) -> list[tuple[Mapping[str, nn.Parameter], float]]:
        return [(_named("decoder", self._m.model.decoder), self._m.config.learning_rate)]

    def prepare(self) -> None:
        self._features = self._m.features()

    def batches(self, generator: torch.Generator) -> list[Tensor]:
        return batches_by_length(self._m.captions.lengths(), self._m.config.batch_size, generator)

    def losses(self, batches: Sequence[Tensor], seed: str) -> Iterator[Losses]:
        objective = self._m.ranks.objective([self._m.model.decoder], self._loss)
        for batch in batches:
            mirrored = torch.rand(len(batch)) < 0.5
            self._m.ranks.own_randomness()
            mine, weight = self._m.share(batch)
            [loss] = objective(batch[mine], mirrored[mine], weight, self._m.captions.targets(batch))
            yield Losses(loss, loss.detach())

    def _loss(self, rows: Tensor, mirrored: Tensor, weight: float, targets: int) -> tuple[Tensor]:
        """Captions by number (B,), which are of mirrored pictures (B,); the tokens to predict in the whole batch."""
        features = self._features[self._m.captions.picture[rows].long(), mirrored.long()].to(self._m.device)
        tokens, owner = self._m.tokens(rows, mirrored), torch.arange(len(rows))
        with self._m.autocast():
            loss = grouped_caption_loss(self._m.model.decoder, features, tokens, owner, self._m.config.label_smoothing)
        return (weight * loss / targets,)


class EndToEndStage:
    """Encoder and decoder, on augmented pictures, each with all its captions."""

    name = "end to end"

    def __init__(self, material: Material) -> None:
        self._m = material
        self.epochs = material.config.finetune_epochs
        self.steps = math.ceil(len(material.paths) / material.config.finetune_batch_size)
        self._encoder = folded_for_training(material.model.encoder)

    @property
    def weights(self) -> list[tuple[Mapping[str, nn.Parameter], float]]:
        decoder = {**_named("decoder", self._m.model.decoder), **_named("concepts", self._m.concept_head)}
        return [
            (decoder, self._m.config.finetune_learning_rate),
            (_named("encoder", self._m.model.encoder), self._m.config.encoder_learning_rate),
        ]

    def prepare(self) -> None:
        pass

    def batches(self, generator: torch.Generator) -> list[Tensor]:
        order = torch.randperm(len(self._m.paths), generator=generator)
        return list(order.split(self._m.config.finetune_batch_size))

    def losses(self, batches: Sequence[Tensor], seed: str) -> Iterator[Losses]:
        def read(picture: int) -> tuple[Tensor, bool]:
            rng = random.Random(f"{seed} {picture}")
            mirrored = rng.random() < 0.5
            image = augmented(load_image(self._m.paths[picture]), mirrored, self._m.preprocess.size, rng)
            return self._m.preprocess.pixels(image), mirrored

        networks = [self._m.model.decoder, self._m.model.encoder, self._m.concept_head]
        objective = self._m.ranks.objective(networks, self._loss)
        shares = [self._m.share(batch) for batch in batches]
        parts = [batch[mine].tolist() for batch, (mine, _) in zip(batches, shares, strict=True)]
        with ThreadPoolExecutor(available_cpus()) as pool:
            ahead = in_order(pool, read, chain.from_iterable(parts), 3 * self._m.config.finetune_batch_size)
            for batch, (_, weight), part in zip(batches, shares, parts, strict=True):
                self._m.ranks.own_randomness()
                ready = list(islice(ahead, len(part)))
                total, captions = objective(
                    torch.tensor(part),
                    torch.stack([pixels for pixels, _ in ready]),
                    torch.tensor([mirrored for _, mirrored in ready]),
                    weight,
                    self._m.captions.targets(self._m.captions.of_pictures(batch)[0]),
                    len(batch),
                )
                yield Losses(total, captions.detach())

    def _loss(
        self, pictures: Tensor, pixels: Tensor, mirrored: Tensor, weight: float, targets: int, number: int
    ) -> tuple[Tensor, Tensor]:
        """Pictures by number (P,), their pixels (P, 3, S, S) uint8, and which are mirrored (P,); of the whole batch the
        tokens to predict and the pictures.
        """
        config = self._m.config
        rows, owner = self._m.captions.of_pictures(pictures)
        with self._m.autocast():
            features = self._encoder(self._m.preprocess.normalise(pixels.to(self._m.device))).float()
            tokens = self._m.tokens(rows, mirrored[owner])
            loss = grouped_caption_loss(self._m.model.decoder, features, tokens, owner, config.label_smoothing)
        captions = weight * loss / targets
        labels = self._m.labels[pictures].to(self._m.device)
        concepts = weight * concept_loss(self._m.concept_head, features, labels) / number if labels.shape[1] else 0.0
        return captions + config.concept_weight * concepts, captions


class SelfCriticalStage:
    """The decoder alone, by the CIDEr-D of captions that it draws itself, held back by cross-entropy."""

    name = "self-critical"

    def __init__(self, material: Material, texts: Sequence[Sequence[str]]) -> None:
        self._m = material
        self.epochs = material.config.scst_epochs
        self.steps = math.ceil(len(material.paths) / material.config.finetune_batch_size)
        self._texts = texts
        self._features = torch.empty(0)

    @property
    def weights(self) -> list[tuple[Mapping[str, nn.Parameter], float]]:
        return [(_named("decoder", self._m.model.decoder), self._m.config.scst_learning_rate)]

    def prepare(self) -> None:
        self._features = self._m.features()
        self.rewards = Rewards(self._texts, self._m.vocabulary)
        options = DecodeOptions("sample", max_length=int(self._m.captions.lengths().max()))
        self._rules = Rules.of(options, self._m.vocabulary)

    def batches(self, generator: torch.Generator) -> list[Tensor]:
        order = torch.randperm(len(self._m.paths), generator=generator)
        return list(order.split(self._m.config.finetune_batch_size))

    def losses(self, batches: Sequence[Tensor], seed: str) -> Iterator[Losses]:
        objective = self._m.ranks.objective([self._m.model.decoder], self._loss)
        for batch in batches:
            self._m.ranks.own_randomness()
            mine, weight = self._m.share(batch)
            rows, _ = self._m.captions.of_pictures(batch)
            total, captions, reward = objective(batch[mine], weight, self._m.captions.targets(rows), len(batch))
            yield Losses(total, captions.detach(), reward)

    def _loss(self, pictures: Tensor, weight: float, targets: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures by number (P,); of the whole batch the tokens to predict and the pictures."""
        config, decoder = self._m.config, self._m.model.decoder
        features = self._features[pictures, 0].to(self._m.device)
        several = features.repeat_interleave(config.scst_samples, 0)
        # The captions are drawn, and their probabilities taken, from the network as it will be used.
        decoder.eval()
        # In an autocast of its own, because torch 2.6 keeps the weights that it has rounded until the end of it, and
        # those that were rounded without gradients would have none later.
        with self._m.autocast():
            tokens = sample_captions(decoder, several, self._rules)
        rewards = self.rewards.of(pictures.repeat_interleave(config.scst_samples).tolist(), tokens)
        rewards = rewards.view(len(pictures), config.scst_samples)
        with self._m.autocast():
            reward_loss = self_critical_loss(decoder, several, tokens, advantages(rewards).flatten().to(self._m.device))
            decoder.train()
            rows, owner = self._m.captions.of_pictures(pictures)
            loss = grouped_caption_loss(decoder, features, self._m.captions.batch(rows), owner, config.label_smoothing)
        captions, share = weight * loss / targets, weight * len(pictures) / number
        return share * reward_loss + config.scst_cross_entropy * captions, captions, share * rewards.mean()


def _named(prefix: str, network: nn.Module) -> dict[str, nn.Parameter]:
    return {f"{prefix}.{name}": weights for name, weights in network.named_parameters()}
