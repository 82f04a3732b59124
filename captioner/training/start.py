"""What a run works on, before its first step: the network with its first weights, the captions and the pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from platform import python_version
from typing import Any

import torch
from torch import Tensor

from captioner.data.splits import Split, same_content
from captioner.data.texts import Texts
from captioner.errors import counted, some
from captioner.files import cache_folder
from captioner.inference.torch_engine import PictureEncoder
from captioner.machine import CpuTimes, cpu_times, free_cpus
from captioner.network.checkpoint import Checkpoint
from captioner.network.encoder import channels_last, native_bfloat16
from captioner.network.model import CaptionModel
from captioner.network.preprocess import Preprocess
from captioner.network.threads import one_thread
from captioner.training.captions import CaptionTokens, mirror_table
from captioner.training.config import TrainConfig
from captioner.training.features import FeatureCache, encoder_digest, features_of
from captioner.training.first import Start, first_checkpoint, nearest_source
from captioner.training.ranks import Ranks
from captioner.training.words import Columns, rates_of, strange_classes
from captioner.vocab import Vocabulary


@dataclasses.dataclass
class Material:
    """What all stages work on: the network, and the captions and pictures to learn from."""

    config: TrainConfig
    model: CaptionModel
    vocabulary: Vocabulary
    preprocess: Preprocess
    paths: list[str]  # of the pictures
    captions: CaptionTokens  # those of the P pictures come first, then those of G photographs that are not there
    sources: Tensor  # (P + G,) int64, the number of the source of a picture's captions
    mirror: Tensor  # (V,), see `mirror_table`
    labels: Tensor  # (P, W) bool: which pictures have the words of the predictor
    ranks: Ranks
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    measured: CpuTimes | None = None  # when `free_cpus` was last called

    computed: tuple[str, Tensor] | None = None  # the digest of an encoder, and features by it
    # Features with their mean and deviation, and the word predictor that was fitted to them: see `known.Known.of`.
    fitted: tuple[tuple[Tensor, ...], dict[str, Tensor], Tensor | None] | None = None

    @classmethod
    @one_thread()
    def of(cls, config: TrainConfig, split: Split, start: Start, ranks: Ranks, texts: Texts | None = None) -> Material:
        """The network before the first step, and the data of a split, and captions without pictures.

        Raises CheckpointError when the first weights cannot be loaded, OptionError when `start` contradicts `config`.
        """
        measured = cpu_times()  # before what takes a while, during which the other programs are watched
        own = [example.captions for example in split.train]
        config = config.for_set(sum(map(len, own)), len(own), bool(texts))
        torch.manual_seed(config.seed)
        first, config, captions = first_checkpoint(config, own, texts, start)
        model, vocabulary = first.model, first.vocabulary
        # Before an optimiser sees the weights, because it keeps its moments in the same memory layout.
        channels_last(model.to(ranks.device).encoder)
        versions = {"python": python_version(), "torch": torch.__version__, "torchvision": version("torchvision")}
        origin = {"captioner": version("captioner"), "data": split.origin, **first.provenance, "versions": versions}
        sources = torch.zeros(len(own), dtype=torch.int64)
        if texts:
            origin["text"] = texts.origin
            sources += nearest_source(captions, len(own), texts, len(vocabulary))
            sources = torch.cat([sources, torch.tensor(texts.source)])
        tokens = model.decoder.words.tokens.cpu() if model.decoder.words.size else sources[:0]
        labels = Columns(tokens, len(vocabulary)).of_pictures(captions, len(own))
        if model.decoder.words.size:
            rates = rates_of(captions, len(own), vocabulary).to(ranks.device)
            if origin.get("init", {}).get("words"):  # a small set has few of the words that the checkpoint knows
                rates = rates.maximum(model.decoder.words.rates)
            model.decoder.words.rates.copy_(rates)
        paths = [str(example.path) for example in split.train]
        if (predictor := model.decoder.words).names and not origin.get("init", {}).get("reads_words"):
            of_names = labels[:, predictor.size - predictor.names :]
            predictor.strange.copy_(strange_classes(predictor.links.cpu(), of_names))
        data = (paths, captions, sources, mirror_table(vocabulary), labels)
        return cls(config, model, vocabulary, first.preprocess, *data, ranks, origin, measured)

    def fingerprint(self) -> str:
        """A digest of options, data and first weights: of all that makes this run another one than others."""
        origin = [self.provenance.get(name) for name in ("data", "encoder_weights", "init", "text")]
        identity = [dataclasses.asdict(self.config), *origin]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def paired(self) -> int:
        """The number of captions that have a picture."""
        return int(self.captions.first[len(self.paths)])

    def checkpoint(self, model: CaptionModel) -> Checkpoint:
        """A checkpoint of this run, whose provenance does not list the pictures of a random split."""

        def without_lists(known: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in known.items() if not isinstance(value, list)}

        data = json.loads(json.dumps(self.provenance["data"]), object_hook=without_lists)
        return Checkpoint(model, self.vocabulary, self.preprocess, {**self.provenance, "data": data})

    def features(self) -> Tensor:
        """Features of all pictures and of their mirror images by the encoder as it is now, (P, 2, F) float16.

        They are computed in float32, so that what is learned does not depend on the processor. All stages share those
        of one encoder: to find them by their pictures' content, every picture has to be read.
        """
        digest = encoder_digest(self.model.encoder, self.preprocess, "float32")
        if self.computed is None or self.computed[0] != digest:
            self.computed = self.fitted = None  # before others take as much memory
            encoder = PictureEncoder(self.model.encoder, self.preprocess, str(self.ranks.device), "float32")
            cache = FeatureCache(cache_folder() / f"features-{digest}.sqlite")
            with self.ranks.progress_bar(len(self.paths), "encoding", "picture") as bar:
                self.computed = digest, features_of(self.paths, encoder, cache, bar.update, self.ranks)
        return self.computed[1]

    def tokens(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """The captions `rows`, (B,), with left and right exchanged where `mirrored`, (B,): (B, T)."""
        tokens = self.captions.batch(rows)
        return torch.where(mirrored[:, None], self.mirror[tokens], tokens)

    def autocast(self) -> torch.autocast:
        """bfloat16 where the processor computes in it."""
        kind = self.ranks.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=native_bfloat16(kind))

    def free_cpus(self) -> int:
        """The processors that other programs have left free since the last call."""
        since, self.measured = self.measured, cpu_times()
        return free_cpus(since)

    def threads(self) -> int:
        """The threads that torch should use: one for each free processor, unless the user has chosen their number."""
        threads = torch.get_num_threads()
        return threads if "OMP_NUM_THREADS" in os.environ else min(threads, self.free_cpus())


def notes(split: Split, material: Material) -> Iterator[str]:
    """What to tell about the data and the network before training begins."""
    yield from (f"note: {note}" for note in split.notes)
    if both := same_content(split):
        pairs = some([f"{one} = {other}" for one, other in both])
        yield f"warning: the same pictures are in train and validation, {counted(len(both), 'pair')}: {pairs}"
    vocabulary, source = material.vocabulary, material.provenance["encoder_weights"]["source"]
    learn = f"{counted(len(material.paths), 'picture')} with {counted(material.paired, 'caption')} to learn from"
    validate = f"{counted(len(split.validation), 'picture')} to validate on"
    words = counted(len(vocabulary), vocabulary.tokens)
    yield f"{learn}, {validate}, {words}; encoder {material.config.encoder} from {source}"
    if without := len(material.captions) - material.paired:
        photographs = counted(len(material.sources) - len(material.paths), "photograph")
        yield f"and {counted(without, 'caption')} without pictures, of {photographs}"
