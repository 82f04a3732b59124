"""How a captioner is trained."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.errors import OptionError
from captioner.options import CELLS, TOKEN_KINDS, check_ranges, option


@dataclass(frozen=True)
class TrainConfig:
    """How a captioner is trained. Raises OptionError for values out of range."""

    epochs: int = option(6, "epochs of the decoder alone, on features computed once", low=0, high=10_000)
    finetune_epochs: int = option(24, "epochs end to end, after that", low=0, high=10_000)
    scst_epochs: int = option(1, "epochs of self-critical training on CIDEr-D, after that", low=0, high=10_000)
    seed: int = option(0, "fixes weights, order of examples, augmentation and dropout", low=0, high=2**31 - 1)

    encoder: str = option("mobilenet_v2", "classification network of torchvision.models that encodes pictures")
    image_size: int = option(
        0,
        "side of the square that pictures are squeezed to, in pixels; 0: as in the checkpoint that the encoder's "
        "weights come from, 224 with other weights",
        low=0,
        high=1024,
    )
    tokens: str = option(
        "auto", "auto: characters for scripts without spaces, such as Chinese", choices=("auto", *TOKEN_KINDS)
    )
    minimum_count: int = option(4, "a word enters the vocabulary when it occurs this often", low=1)
    cell: str = option("gru", "the recurrent cell of the decoder", choices=CELLS)
    layers: int = option(1, "recurrent layers, each reading the one before", low=1, high=100)
    hidden_size: int = option(512, "size of the hidden state", low=1, high=65_536)
    embedding_size: int = option(256, "size of a word's embedding", low=1, high=65_536)
    dropout: float = option(
        0.5, "share of units dropped between the decoder's layers, and half of it of the features", low=0.0, high=0.95
    )

    label_smoothing: float = option(0.05, "probability mass given to the other words", low=0.0, high=0.9)
    batch_size: int = option(64, "captions a step while the encoder is frozen", low=1)
    learning_rate: float = option(1.5e-3, "peak learning rate while the encoder is frozen", low=0.0, high=1.0)
    finetune_batch_size: int = option(32, "pictures a step after that, each with all its captions", low=1)
    finetune_learning_rate: float = option(4e-4, "peak learning rate of the decoder end to end", low=0.0, high=1.0)
    encoder_learning_rate: float = option(2e-4, "peak learning rate of the encoder end to end", low=0.0, high=1.0)
    concepts: int = option(
        320, "frequent words of the captions that the feature must also predict end to end; 0: none", low=0
    )
    concept_weight: float = option(0.05, "weight of that loss, summed over the words", low=0.0, high=100.0)
    scst_learning_rate: float = option(1e-4, "peak learning rate of self-critical training", low=0.0, high=1.0)
    scst_samples: int = option(5, "captions drawn for each picture in self-critical training", low=2, high=1000)
    scst_cross_entropy: float = option(0.5, "weight of the cross-entropy that holds it back", low=0.0, high=100.0)
    weight_decay: float = option(0.1, "decoupled weight decay of AdamW", low=0.0, high=1.0)
    gradient_clip: float = option(5.0, "largest norm of the gradient", low=0.0)
    average: float = option(
        0.1, "share of a stage's steps that the moving average of the weights reaches back", low=0.0, high=1.0
    )
    metric: str = option("cider", "validation score that stops a stage early", choices=("cider", "bleu_4"))
    patience: float = option(
        0.4, "share of a stage's epochs without a better score after which it stops", low=0.0, high=1.0
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if 0 < self.image_size < 32:
            raise OptionError(f"image_size must be 0 or at least 32, not {self.image_size}")
        if self.epochs + self.finetune_epochs + self.scst_epochs == 0:
            raise OptionError("all stages have 0 epochs, nothing would be trained: set --epochs to at least 1")
