"""What a run works on, before its first step: the network with its first weights, the captions and the pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import torch
from torch import Tensor, nn

from captioner.data.splits import Split, same_content
from captioner.errors import OptionError, counted, some
from captioner.files import sha256_of
from captioner.inference.captioner import PictureEncoder
from captioner.machine import CpuTimes, cpu_times, free_cpus
from captioner.network.checkpoint import Checkpoint, load_checkpoint
from captioner.network.encoder import channels_last, native_bfloat16
from captioner.network.header import find_checkpoint, models
from captioner.network.model import CaptionModel, ModelConfig
from captioner.network.preprocess import Preprocess
from captioner.network.recurrent import has_memory
from captioner.training.captions import CaptionTokens, mirror_table
from captioner.training.config import FIXED_BY_INIT, StrPath, TrainConfig, refuse_fixed
from captioner.training.encoder_weights import load_encoder_weights
from captioner.training.features import FeatureCache, cache_folder, encoder_digest, features_of
from captioner.training.losses import concept_labels
from captioner.training.ranks import Ranks
from captioner.vocab import UNK, Vocabulary, fitting_tokens


@dataclasses.dataclass(frozen=True)
class Start:
    """Where the first weights come from.

    `encoder_weights` is a torchvision state dict or one of our checkpoints; None means torchvision's download. `init`
    is a checkpoint from which training continues, and which fixes encoder, decoder and vocabulary.
    """

    encoder_weights: Path | None = None
    init: Path | None = None

    @classmethod
    def choose(cls, config: TrainConfig, init: StrPath | None, weights: StrPath | None) -> Start:
        """From what was asked for. By default, a shipped checkpoint gives the encoder, if it has the right one.

        Raises OptionError for both at once, CheckpointError for a short name that does not exist.
        """
        if init and weights:
            raise OptionError("init (--init) brings its own encoder: leave out encoder_weights (--encoder-weights)")
        if init:
            return cls(init=find_checkpoint(init))
        shipped = (model.path for model in models() if model.encoder == config.encoder)
        return cls(Path(weights) if weights else next(shipped, None))


@dataclasses.dataclass
class Material:
    """What all stages work on: the network, and the captions and pictures to learn from."""

    config: TrainConfig
    model: CaptionModel
    concept_head: nn.Linear
    vocabulary: Vocabulary
    preprocess: Preprocess
    paths: list[str]  # of the pictures
    captions: CaptionTokens
    mirror: Tensor  # (V,), see `mirror_table`
    labels: Tensor  # (P, C) bool, see `concept_labels`
    ranks: Ranks
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    measured: CpuTimes | None = None  # when `free_cpus` was last called

    @classmethod
    def of(cls, config: TrainConfig, split: Split, start: Start, ranks: Ranks) -> Material:
        """The network before the first step, and the data of a split.

        Raises CheckpointError when the first weights cannot be loaded, OptionError when `start` contradicts `config`.
        """
        measured = cpu_times()  # before what takes a while, during which the other programs are watched
        texts = [example.captions for example in split.train]
        config = config.for_set(sum(map(len, texts)), len(texts))
        torch.manual_seed(config.seed)
        first, config = first_checkpoint(config, [text for captions in texts for text in captions], start)
        model, vocabulary = first.model, first.vocabulary
        concepts, labels = concept_labels(texts, vocabulary, config.concepts)
        # Before an optimiser sees the weights, because it keeps its moments in the same memory layout.
        channels_last(model.to(ranks.device).encoder)
        with warnings.catch_warnings():
            # A small set may have no frequent words, and torch warns of layers without outputs.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            concept_head = nn.Linear(model.encoder.feature_size, len(concepts)).to(ranks.device)
        versions = {"python": python_version(), "torch": torch.__version__, "torchvision": version("torchvision")}
        origin = {"captioner": version("captioner"), "data": split.origin, **first.provenance, "versions": versions}
        paths, captions = [str(example.path) for example in split.train], CaptionTokens.of(texts, vocabulary)
        data = (paths, captions, mirror_table(vocabulary), labels)
        return cls(config, model, concept_head, vocabulary, first.preprocess, *data, ranks, origin, measured)

    def fingerprint(self) -> str:
        """A digest of options, data and first weights: of all that makes this run another one than others."""
        origin = [self.provenance.get(name) for name in ("data", "encoder_weights", "init")]
        identity = [dataclasses.asdict(self.config), *origin]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def networks(self) -> nn.Module:
        """Everything that has weights."""
        return nn.ModuleDict({"model": self.model, "concepts": self.concept_head})

    def checkpoint(self, model: CaptionModel) -> Checkpoint:
        """A checkpoint of this run, whose provenance does not list the pictures of a random split."""

        def without_lists(known: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in known.items() if not isinstance(value, list)}

        data = json.loads(json.dumps(self.provenance["data"]), object_hook=without_lists)
        return Checkpoint(model, self.vocabulary, self.preprocess, {**self.provenance, "data": data})

    def features(self) -> Tensor:
        """Features of all pictures and of their mirror images by the encoder as it is now, (P, 2, F).

        They are computed in float32, so that what is learned does not depend on the processor.
        """
        encoder = PictureEncoder(self.model.encoder, self.preprocess, str(self.ranks.device), "float32")
        digest = encoder_digest(self.model.encoder, self.preprocess, "float32")
        cache = FeatureCache(cache_folder() / f"features-{digest}.sqlite")
        with self.ranks.progress_bar(len(self.paths), "encoding", "picture") as bar:
            return features_of(self.paths, encoder, cache, bar.update, self.ranks)

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


def first_checkpoint(config: TrainConfig, captions: Sequence[str], start: Start) -> tuple[Checkpoint, TrainConfig]:
    """The network before the first step, with where its weights came from, and the config that describes it."""
    if start.init:
        return warm_start(config, captions, start.init)
    tokens = fitting_tokens(captions) if config.tokens == "auto" else config.tokens
    vocabulary = Vocabulary.build(captions, config.minimum_count, tokens)
    names = [field.name for field in dataclasses.fields(ModelConfig) if hasattr(config, field.name)]
    sizes: dict[str, Any] = {name: getattr(config, name) for name in names}
    # Measured in docs/experiments.md: without these three, a cell with a memory learns more slowly than a GRU.
    if has_memory(config.cell):
        sizes |= {"hidden_scale": 3.0, "linear_memory": True}
    model = CaptionModel.create(ModelConfig(vocabulary_size=len(vocabulary), **sizes))
    source, preprocess = load_encoder_weights(model.encoder, config.encoder, start.encoder_weights)
    preprocess = dataclasses.replace(preprocess, size=config.image_size or preprocess.size)
    config = dataclasses.replace(config, image_size=preprocess.size)
    return Checkpoint(model, vocabulary, preprocess, {"encoder_weights": source}), config


def warm_start(config: TrainConfig, captions: Sequence[str], path: Path) -> tuple[Checkpoint, TrainConfig]:
    """The captioner in `path` with the new words of `captions` in its vocabulary, and the config that fits it.

    A new word begins as a copy of `<unk>`, which stood for it before. Everything in FIXED_BY_INIT is as in the
    checkpoint. Raises OptionError when the config asks for something else there, and CheckpointError.
    """
    checkpoint = load_checkpoint(path)
    known, old = checkpoint.vocabulary, checkpoint.model.config
    of_checkpoint = {"image_size": checkpoint.preprocess.size, "tokens": known.tokens, **dataclasses.asdict(old)}
    fixed = {name: of_checkpoint[name] for name in FIXED_BY_INIT}
    standard = TrainConfig()
    refuse_fixed(name for name in fixed if getattr(config, name) not in (fixed[name], getattr(standard, name)))
    new = Vocabulary.build(captions, config.minimum_count, known.tokens)
    words = tuple(dict.fromkeys(known.words + new.words))  # in this order, each once
    model = CaptionModel.create(dataclasses.replace(old, vocabulary_size=len(words), dropout=config.dropout))
    state = checkpoint.model.state_dict()
    for key in ("decoder.embedding.weight", "decoder.output.weight", "decoder.output.bias"):
        rows = state[key]
        more = rows[UNK].expand(len(words) - len(rows), *rows.shape[1:])
        # A little noise, so that the new words can become different from each other.
        state[key] = torch.cat([rows, more + 0.01 * rows.std() * torch.randn(more.shape)])
    model.load_state_dict(state)
    source = {"source": f"checkpoint {path.name}", "sha256": sha256_of(path)}
    origin = {"encoder_weights": source, "init": {**source, "provenance": checkpoint.provenance}}
    extended = Checkpoint(model, Vocabulary(words, known.tokens), checkpoint.preprocess, origin)
    return extended, dataclasses.replace(config, **fixed)


def notes(split: Split, material: Material) -> Iterator[str]:
    """What to tell about the data and the network before training begins."""
    yield from (f"note: {note}" for note in split.notes)
    if both := same_content(split):
        pairs = some([f"{one} = {other}" for one, other in both])
        yield f"warning: the same pictures are in train and validation, {counted(len(both), 'pair')}: {pairs}"
    vocabulary, source = material.vocabulary, material.provenance["encoder_weights"]["source"]
    learn = f"{counted(len(material.paths), 'picture')} with {counted(len(material.captions), 'caption')} to learn from"
    validate = f"{counted(len(split.validation), 'picture')} to validate on"
    words = counted(len(vocabulary), vocabulary.tokens)
    yield f"{learn}, {validate}, {words}; encoder {material.config.encoder} from {source}"
