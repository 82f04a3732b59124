"""The options of a training run."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from captioner.errors import DataError, OptionError
from captioner.files import AnyPath, read_json
from captioner.options import CELLS, TOKEN_KINDS, check_ranges, option, option_specs

# What a checkpoint from which training continues fixes.
FIXED_BY_INIT = ("encoder", "image_size", "tokens", "cell", "layers", "hidden_size", "embedding_size")

_LISTS = ("train_list", "val_list")

# The epochs of a large set, and the fewest steps that these must make; a small set gets more epochs instead.
_DECODER_EPOCHS, _DECODER_STEPS = 6, 800
_END_TO_END_EPOCHS, _END_TO_END_STEPS = 12, 400
_MATCH_EPOCHS, _MATCH_STEPS = 20, 200
MATCH_BATCH = 256  # pairs of a picture and a caption, each of which is told from all others of its batch

_run, _network = partial(option, group="training"), partial(option, group="network")
_epochs, _decoder = partial(_run, low=0, high=10_000), partial(option, group="first stage: decoder alone")
_chosen = partial(_epochs, None, kind=int)  # by the size of the set
_end_to_end = partial(option, group="second stage: end to end")
_rewards = partial(option, group="third stage: self-critical training")
_matching = partial(option, group="fourth stage: sentences that find pictures")
_every = partial(option, group="all stages")


@dataclass(frozen=True)
class TrainConfig:
    """The options of a training run. Raises OptionError for values out of range and for a run of no epochs."""

    epochs: int | None = _chosen("epochs of the decoder alone", unset=f"{_DECODER_EPOCHS}, more for a small set")
    finetune_epochs: int | None = _chosen(
        "epochs end to end, after that", unset=f"{_END_TO_END_EPOCHS}, more for a small set"
    )
    scst_epochs: int = _epochs(1, "epochs of self-critical training, after that")
    match_epochs: int | None = _chosen(
        "epochs in which sentences learn to find pictures, at the end", unset=f"{_MATCH_EPOCHS}, more for a small set"
    )
    seed: int = _run(0, "fixes first weights, order of examples, augmentation and dropout", low=0, high=2**31 - 1)
    metric: str = _run("cider", "validation score that can end a stage early", choices=("cider", "bleu_4"))
    patience: float = _run(0.4, "end a stage after this share of its epochs without a better score", low=0.0, high=1.0)

    encoder: str = _network(
        "efficientnet_lite2", "network that encodes pictures: of torchvision, or efficientnet_lite0 to 2"
    )
    image_size: int = _network(
        0, "side of the square that pictures are resized to; 0: as for the encoder's first weights", low=0, high=1024
    )
    tokens: str = _network(
        "auto", "what captions are split into; auto: as their script needs", choices=("auto", *TOKEN_KINDS)
    )
    minimum_count: int = _network(4, "a word enters the vocabulary when it occurs at least this often", low=1)
    cell: str = _network("lstm", "recurrent cell of the decoder", choices=CELLS)
    layers: int = _network(1, "recurrent layers of the decoder", low=1, high=100)
    concepts: int = _network(600, "frequent words that are predicted from features; 0: none", low=0, high=10_000)
    hidden_size: int = _network(512, "size of the hidden state", low=1, high=65_536)
    embedding_size: int = _network(256, "size of the word embeddings", low=1, high=65_536)

    batch_size: int = _decoder(64, "captions in a batch", low=1)
    learning_rate: float = _decoder(1.5e-3, "peak learning rate", low=0.0, high=1.0)
    text_share: float = _decoder(0.5, "share of captions without pictures, given --text", low=0.0, high=0.95)

    finetune_batch_size: int = _end_to_end(32, "pictures in a batch; also in self-critical training", low=1)
    finetune_learning_rate: float = _end_to_end(4e-4, "peak learning rate of the decoder", low=0.0, high=1.0)
    encoder_learning_rate: float = _end_to_end(2e-4, "peak learning rate of the encoder", low=0.0, high=1.0)
    concept_weight: float = _end_to_end(
        0.05, "weight of the loss of predicted words, which is a sum over them", low=0.0, high=100.0
    )
    keep_weight: float = _end_to_end(
        0.5, "weight of the loss that keeps what the encoder's first weights know of ImageNet", low=0.0, high=100.0
    )

    scst_learning_rate: float = _rewards(1e-4, "peak learning rate", low=0.0, high=1.0)
    scst_samples: int = _rewards(5, "captions drawn for each picture", low=2, high=1000)
    scst_cross_entropy: float = _rewards(0.5, "weight of the cross-entropy beside the rewards", low=0.0, high=100.0)

    match_learning_rate: float = _matching(1e-3, "peak learning rate", low=0.0, high=1.0)

    dropout: float = _every(0.5, "share of the decoder's units to drop; half of it for features", low=0.0, high=0.95)
    label_smoothing: float = _every(
        0.05, "probability taken from the right word and spread over all words", low=0.0, high=0.9
    )
    weight_decay: float = _every(0.1, "decoupled weight decay of AdamW", low=0.0, high=1.0)
    gradient_clip: float = _every(5.0, "largest norm of the gradient", low=0.0)
    average: float = _every(0.1, "share of a stage's steps over which weights are averaged", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        check_ranges(self)
        if 0 < self.image_size < 32:
            raise OptionError(f"image_size must be 0 or at least 32, not {self.image_size}")
        if (self.epochs, self.finetune_epochs, self.scst_epochs, self.match_epochs) == (0, 0, 0, 0):
            raise OptionError("all stages have 0 epochs, nothing would be trained: set --epochs to at least 1")

    def for_set(self, captions: int, pictures: int, text: bool = False) -> TrainConfig:
        """The same options with all numbers of epochs chosen for a training set of so many captions and pictures.

        Numbers that were given stay. Learning takes a certain number of steps, so that a small set gets more epochs.
        With captions that have no pictures, `text`, the encoder stays as it is: they would be forgotten while it is
        trained. Raises OptionError when its training was asked for nevertheless.
        """
        chosen: dict[str, Any] = {}
        if text and self.finetune_epochs:
            raise OptionError("captions without pictures (--text) train the decoder alone: add --finetune-epochs 0")
        if text:
            chosen["finetune_epochs"] = 0
        each = max(1, captions // max(1, pictures))  # captions of a picture, which are matched one after the other
        for name, usual, least_steps, steps in (
            ("epochs", _DECODER_EPOCHS, _DECODER_STEPS, math.ceil(captions / self.batch_size)),
            ("finetune_epochs", _END_TO_END_EPOCHS, _END_TO_END_STEPS, math.ceil(pictures / self.finetune_batch_size)),
            ("match_epochs", _MATCH_EPOCHS, _MATCH_STEPS, each * math.ceil(pictures / MATCH_BATCH)),
        ):
            if getattr(self, name) is None and name not in chosen:
                chosen[name] = max(usual, math.ceil(least_steps / max(1, steps)))
        return dataclasses.replace(self, **chosen)


def refuse_fixed(names: Iterable[str]) -> None:
    """Raise OptionError for the first name, an option that the checkpoint `init` fixes."""
    for name in names:
        flag = name.replace("_", "-")
        raise OptionError(f"the checkpoint of init (--init) fixes {name}: leave out {name} (--{flag})")


@dataclass(frozen=True)
class Given:
    """What a run was given besides its options: the paths of its data and of its first weights."""

    captions: AnyPath | None = None
    images: AnyPath | None = None
    train_list: AnyPath | None = None
    val_list: AnyPath | None = None
    init: AnyPath | None = None
    encoder_weights: AnyPath | None = None
    text: AnyPath | None = None

    def completed(self, known: Given) -> Given:
        """The same, with what another run was given in place of what is None. First weights have one origin only."""
        weights = (
            {} if self.init or self.encoder_weights else {"init": known.init, "encoder_weights": known.encoder_weights}
        )
        others = {name: getattr(self, name) or getattr(known, name) for name in ("captions", "images", "text", *_LISTS)}
        return dataclasses.replace(self, **others, **weights)

    def as_paths(self) -> dict[str, str]:
        """As JSON, good from any folder. The short name of a shipped checkpoint stays one, and a link its own name."""
        paths = {name: os.fspath(path) for name, path in dataclasses.asdict(self).items() if path}
        return {name: str(Path(path).absolute()) if Path(path).exists() else path for name, path in paths.items()}


def read_run(place: Path) -> tuple[dict[str, Any], Given]:
    """The options of a run and what it was given, from its config.json, or from the folder of that.

    Raises OptionError when there is no such file or it is damaged.
    """
    file = place / "config.json" if place.is_dir() else place
    try:
        content = read_json(file)
        options, given = dict(content["train"]), Given(**content.get("given", {}))
        for path in filter(None, dataclasses.astuple(given)):
            os.fspath(path)  # raises TypeError
    except (OSError, DataError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise OptionError(f"{file}: not the config.json of a run ({error})") from error
    for name in sorted(options.keys() - {spec.name for spec in option_specs(TrainConfig)}):
        raise OptionError(f"{file}: this version has no option {name}: delete it from the file")
    return options, given
