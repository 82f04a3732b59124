"""Saving and loading checkpoints: weights, model config, vocabulary, preprocessing, provenance.

The file is plain safetensors and nothing in it is code; `header.py` describes the header.
Matrices are stored with 8 bits a weight: whole numbers from -127 to 127, and for each row the number that they are
multiplied by, under the matrix's name with ".scale". Other weights, such as those of convolutions, are stored in half
precision. Scores in the provenance are those of the rounded weights.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn
from torch.overrides import TorchFunctionMode

from captioner.errors import CheckpointError
from captioner.files import replacing
from captioner.network.config import Trust
from captioner.network.header import FORMAT_VERSION, KEY, dataclass_from, opened
from captioner.network.model import CaptionModel
from captioner.network.preprocess import Preprocess
from captioner.network.threads import one_thread
from captioner.network.words import CLASSES
from captioner.vocab import Vocabulary

_MAX_WEIGHT = 65_504.0  # the largest number in half precision
_SCALE = ".scale"


@dataclass
class Checkpoint:
    """What a checkpoint file holds, ready for use: the model is in evaluation mode, in float32."""

    model: CaptionModel
    vocabulary: Vocabulary
    preprocess: Preprocess
    provenance: dict[str, Any] = field(default_factory=dict)
    trust: Trust | None = None  # what its word is worth, where that was measured


def stored(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of a model, or of a part of it, as a checkpoint stores it: see the module.

    Raises ValueError for weights that are not finite, or too large for half precision.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.is_floating_point() and not (tensor.abs() <= _MAX_WEIGHT).all():
            raise ValueError(f"{name} became too large, or not a number")
        if _is_matrix(tensor):
            tensor, tensors[name + _SCALE] = _quantised(tensor.to(torch.float32))
        tensors[name] = tensor.half() if tensor.is_floating_point() else tensor
    return tensors


def rounded(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict as it is after saving and loading. Raises ValueError like `stored`."""
    tensors = stored(model)
    return {name: _whole(tensors[name], tensors.get(name + _SCALE)) for name in model.state_dict()}


def _is_matrix(tensor: torch.Tensor) -> bool:
    return tensor.ndim == 2 and tensor.is_floating_point()


def _quantised(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix (N, M) as whole numbers int8, and the scale of each row, (N, 1) float32.

    What was stored once is stored again without any change: x / 127 * 127 / 127 is x / 127 in float32, too.
    """
    scale = matrix.abs().amax(1, keepdim=True) / 127
    return (matrix / scale.clamp(min=torch.finfo(scale.dtype).tiny)).round().to(torch.int8), scale


def _whole(tensor: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """Weights in float32, and other tensors as they are, from what a checkpoint stores."""
    if scale is not None:
        return tensor * scale
    return tensor.float() if tensor.is_floating_point() else tensor


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, replacing `path` whole. Raises ValueError like `stored`."""
    tensors = stored(checkpoint.model)
    content = {
        "format_version": FORMAT_VERSION,
        "model": dataclasses.asdict(checkpoint.model.config),
        "tokens": checkpoint.vocabulary.tokens,
        "vocabulary": list(checkpoint.vocabulary.words),
        "spellings": dict(checkpoint.vocabulary.spellings),
        "preprocess": dataclasses.asdict(checkpoint.preprocess),
        "provenance": checkpoint.provenance,
        "trust": dataclasses.asdict(checkpoint.trust) if checkpoint.trust else None,
    }
    data = save(tensors, metadata={KEY: json.dumps(content, ensure_ascii=False, sort_keys=True)})
    with replacing(path, "wb") as file:
        file.write(data)


@one_thread()
def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read and check a checkpoint. Raises CheckpointError, naming what is wrong; runs nothing from the file."""
    with opened(Path(path), "pt") as (file, header):
        preprocess: Preprocess = dataclass_from(Preprocess, header.preprocess)
        if not 1 <= preprocess.size <= 4096 or min(preprocess.std) < 1e-6:
            raise ValueError("impossible preprocessing")
        # Sizes come from the file and may be wrong: they take no memory before the tensors are seen to fit.
        with _ShapesOnly():
            model = CaptionModel.create(header.config)
        wanted, names = model.state_dict(), {name: name for name in file.keys()}  # noqa: SIM118 (no dict)
        if header.version == 1:
            names = {name.replace("decoder.lstm.", "decoder.recurrent.0.cell."): name for name in names}
        scales = {name + _SCALE for name, tensor in wanted.items() if _is_matrix(tensor)} & names.keys()
        for name in sorted((wanted.keys() ^ names.keys()) - scales):
            problem = "is missing" if name in wanted else "does not belong to this model"
            raise CheckpointError(f"damaged: the tensor {name!r:.120} {problem}")
        state = {}
        for name, tensor in wanted.items():
            scale = _read(file, name + _SCALE, tensor[:, :1], ("F32",)) if name + _SCALE in scales else None
            types = ("I8",) if scale is not None else ("F16", "F32") if tensor.is_floating_point() else ("I64",)
            # safetensors gives a view into the file, which may be replaced later.
            state[name] = _whole(_read(file, names[name], tensor, types).clone(), scale)
        if not (state["decoder.feature_std"] > 0.0).all():
            raise CheckpointError("damaged: decoder.feature_std holds zeros or less, by which features are divided")
        if header.config.names and not _in_range(state["decoder.words.links"].T, (CLASSES, header.config.names)):
            raise CheckpointError("damaged: decoder.words.links names a class or a word that does not exist")
        if header.config.names and not ((strange := state["decoder.words.strange"]) * (1.0 - strange) == 0.0).all():
            raise CheckpointError("damaged: decoder.words.strange holds something else than 0 and 1")
        if (rates := state.get("decoder.words.rates")) is not None and not ((rates >= 0.0) & (rates <= 1.0)).all():
            raise CheckpointError("damaged: decoder.words.rates holds something else than shares from 0 to 1")
        if "decoder.words.tokens" in state and not _in_range(state["decoder.words.tokens"], (len(header.vocabulary),)):
            raise CheckpointError("damaged: decoder.words.tokens names a word that does not exist")
    model.load_state_dict(state, assign=True)  # strictly; the model was shapes only until now
    return Checkpoint(model.eval().to(device), header.vocabulary, preprocess, header.provenance, header.trust)


def _read(file: Any, name: str, wanted: torch.Tensor, types: tuple[str, ...]) -> torch.Tensor:
    """A tensor of the file, of the shape of `wanted` and one of the types."""
    shape, dtype = tuple(file.get_slice(name).get_shape()), file.get_slice(name).get_dtype()
    if shape != tuple(wanted.shape):
        raise CheckpointError(f"damaged: {name} has shape {shape}, not {tuple(wanted.shape)}")
    if dtype not in types:
        raise CheckpointError(f"damaged: {name} holds {dtype} values")
    tensor: torch.Tensor = file.get_tensor(name)
    if tensor.is_floating_point() and not (tensor.abs() <= _MAX_WEIGHT).all():
        raise CheckpointError(f"damaged: {name} holds values that are not numbers, or far too large")
    return tensor


def _in_range(numbers: torch.Tensor, ends: tuple[int, ...]) -> bool:
    """Whether all numbers (N, K), or (N,), are from 0 to below the end of their column."""
    return bool(((numbers >= 0) & (numbers < torch.tensor(ends))).all())


class _ShapesOnly(TorchFunctionMode):
    """Layers made inside have weights without memory.

    `torch.device("meta")` would do that to every tensor, but RegNets calculate with some while they are made.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        if getattr(func, "__module__", "") == nn.init.__name__:
            # There is nothing to initialise, and without memory torch would import its compiler for it.
            return next(iter([*args, *kwargs.values()]))
        return func(*args, **kwargs)
