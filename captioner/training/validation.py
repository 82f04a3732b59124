"""Validation of a run, with the code that users run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from captioner.data.splits import Example
from captioner.evaluation.retrieval import ranks, retrieval_scores
from captioner.evaluation.scores import collapsed, floor_of, score_captions
from captioner.inference.progress import LogLines
from captioner.inference.torch_engine import PictureEncoder, captioner_of
from captioner.network.checkpoint import Checkpoint
from captioner.network.config import Trust
from captioner.network.encoder import computing_type
from captioner.pictures.load import thumbnail
from captioner.training.captions import CaptionTokens, sentences_of
from captioner.training.features import encoder_digest
from captioner.training.losses import caption_loss
from captioner.training.ranks import Ranks
from captioner.training.trust import measure
from captioner.vocab import Vocabulary

ENOUGH = 20  # validation pictures; of fewer, one caption may fit all
_TOGETHER = 64  # captions whose logits are in memory at the same time
SAMPLES = 10  # validation pictures whose captions are shown after each epoch


class Validation:
    """The validation pictures with their reference captions. Each rank captions its share of them."""

    def __init__(self, examples: Sequence[Example], vocabulary: Vocabulary, ranks: Ranks) -> None:
        self._examples, self._vocabulary, self._ranks = examples, vocabulary, ranks
        self._mine = [examples[place] for place in ranks.share(len(examples)).tolist()]
        self._captions = CaptionTokens.of([example.captions for example in self._mine], vocabulary)
        self._features: tuple[str, Tensor, PictureEncoder] | None = None

    @cached_property
    def alone(self) -> Validation:
        """The same validation by this rank alone."""
        if self._ranks.size == 1:
            return self
        return Validation(self._examples, self._vocabulary, Ranks(device=self._ranks.device))

    @property
    def precision(self) -> str:
        """The precision in which `captioner.load` computes on this device by default."""
        return str(computing_type("auto", self._ranks.device.type)).removeprefix("torch.")

    def scores(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Loss, scores of captions with default decoding, and the captions of the sample pictures."""
        features, encoder = self._encoded(checkpoint)
        with self._progress("captioning") as bar:
            captions_of = captioner_of(checkpoint, encoder).caption_features
            mine = [caption.text for caption in captions_of(features.cpu().numpy())]
            bar.update(len(mine))
        captions = self._ranks.gather_texts(mine, len(self._examples))
        with torch.inference_mode():
            losses = [float(caption_loss(checkpoint.model.decoder, *batch)) for batch in self.batches(checkpoint)]
        targets = self._captions.targets(torch.arange(len(self._captions)))
        loss, targets_in_all = self._ranks.sum(sum(losses), targets)
        references = [example.captions for example in self._examples]
        scores = score_captions(captions, references, self._vocabulary.tokens)
        return {"loss": loss / targets_in_all, **scores, "samples": self._samples(captions)}

    @torch.inference_mode()
    def retrieval(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """How well sentences find pictures and pictures sentences, by the checkpoint's matcher, among all of them."""
        every, decoder, matcher = self.alone, checkpoint.model.decoder, checkpoint.model.matcher
        assert matcher is not None
        features, _ = every._encoded(checkpoint)
        pictures = matcher.eval().pictures(decoder.standardised(features))
        rows = torch.arange(len(every._captions)).split(256)
        tokens = [sentences_of(every._captions.batch(some)).to(features.device) for some in rows]
        sentences = torch.cat([matcher.sentences(some) for some in tokens])
        owner = every._captions.picture.long().numpy()
        return retrieval_scores(*ranks(sentences.cpu().numpy(), pictures.cpu().numpy(), owner))

    def batches(self, checkpoint: Checkpoint) -> list[tuple[Tensor, Tensor]]:
        """All captions of this rank's share, (B, T), with the features of their pictures, (B, F)."""
        features, _ = self._encoded(checkpoint)
        return [
            (features[self._captions.picture[rows].long()], self._captions.batch(rows).to(self._ranks.device))
            for rows in torch.arange(len(self._captions)).split(_TOGETHER)
        ]

    def trust(self, checkpoint: Checkpoint) -> tuple[Trust | None, dict[str, Any]]:
        """What the checkpoint's word is worth, measured on all validation pictures by this rank."""
        features, encoder = self._encoded(checkpoint)
        paths, texts = zip(*((example.path, example.captions) for example in self._mine), strict=True)
        return measure(checkpoint, features, paths, texts, encoder)

    def collapsed(self, scores: dict[str, Any]) -> list[str]:
        """How captions with these `scores` show that they hardly depend on the picture. A few pictures cannot tell."""
        return collapsed(scores, self._floor) if len(self._examples) >= ENOUGH else []

    @cached_property
    def _floor(self) -> dict[str, Any]:
        return floor_of([example.captions for example in self._examples], self._vocabulary.tokens)

    @cached_property
    def shown(self) -> list[tuple[str, str | None, str]]:
        """Name, thumbnail and one reference of each sample picture."""
        examples = self._samples(self._examples)
        return [(each.name, thumbnail(each.path), next(iter(each.captions), "")) for each in examples]

    def _encoded(self, checkpoint: Checkpoint) -> tuple[Tensor, PictureEncoder]:
        """Features (n, F) of this rank's share and what computed them, anew only when the encoder has changed."""
        key = encoder_digest(checkpoint.model.encoder, checkpoint.preprocess, "auto")
        if self._features is None or self._features[0] != key:
            encoder = PictureEncoder(checkpoint.model.encoder, checkpoint.preprocess, str(self._ranks.device), "auto")
            with self._progress("encoding") as bar:
                self._features = key, encoder.encode(self._paths(bar)), encoder
        return self._features[1:]

    def _progress(self, doing: str) -> tqdm[Any] | LogLines:
        return self._ranks.progress_bar(len(self._mine), f"{doing} what is validated on", "picture")

    def _paths(self, bar: tqdm[Any] | LogLines) -> Iterator[Path]:
        for example in self._mine:
            yield example.path
            bar.update()

    def _samples(self, items: Sequence[Any]) -> Sequence[Any]:
        """One item for each sample picture, which are spread evenly over all validation pictures."""
        return items[:: max(1, len(self._examples) // SAMPLES)][:SAMPLES]
