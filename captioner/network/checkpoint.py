"""Saving and loading checkpoints: weights, model config, vocabulary, preprocessing, provenance.

The file is plain safetensors and nothing in it is code; `header.py` describes the header.
Weights are stored in half precision: scores in the provenance are those of the rounded weights.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch.overrides import TorchFunctionMode

from captioner.errors import CheckpointError
from captioner.files import replacing
from captioner.network.header import FORMAT_VERSION, KEY, dataclass_from, opened
from captioner.network.model import CaptionModel
from captioner.network.preprocess import Preprocess
from captioner.vocab import Vocabulary

_MAX_WEIGHT = 65_504.0  # the largest number in half precision


@dataclass
class Checkpoint:
    """What a checkpoint file holds, ready for use: the model is in evaluation mode, in float32."""

    model: CaptionModel
    vocabulary: Vocabulary
    preprocess: Preprocess
    provenance: dict[str, Any] = field(default_factory=dict)


def half_precision(model: CaptionModel) -> dict[str, torch.Tensor]:
    """The state dict as a checkpoint stores it: floating-point weights rounded to float16."""
    return {
        name: tensor.detach().cpu().contiguous().to(torch.float16 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in model.state_dict().items()
    }


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, replacing `path` whole. Raises ValueError for weights that half precision cannot hold."""
    tensors = half_precision(checkpoint.model)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"weights of {name} are not finite in half precision: the training diverged")
    content = {
        "format_version": FORMAT_VERSION,
        "model": dataclasses.asdict(checkpoint.model.config),
        "tokens": checkpoint.vocabulary.tokens,
        "vocabulary": list(checkpoint.vocabulary.words),
        "preprocess": dataclasses.asdict(checkpoint.preprocess),
        "provenance": checkpoint.provenance,
    }
    data = save(tensors, metadata={KEY: json.dumps(content, ensure_ascii=False, sort_keys=True)})
    with replacing(path, "wb") as file:
        file.write(data)


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
        for name in sorted(wanted.keys() ^ names.keys()):
            problem = "is missing" if name in wanted else "does not belong to this model"
            raise CheckpointError(f"damaged: the tensor {name!r:.120} {problem}")
        state = {name: _read(file, names[name], name, tensor) for name, tensor in wanted.items()}
        if not (state["decoder.feature_std"] > 0.0).all():
            raise CheckpointError("damaged: decoder.feature_std holds zeros or less, by which features are divided")
    model.load_state_dict(state, assign=True)  # strictly; the model was shapes only until now
    return Checkpoint(model.eval().to(device), header.vocabulary, preprocess, header.provenance)


def _read(file: Any, stored: str, name: str, wanted: torch.Tensor) -> torch.Tensor:
    """The tensor that the file calls `stored` and the model `name`, in float32 if it holds weights."""
    shape, dtype = tuple(file.get_slice(stored).get_shape()), file.get_slice(stored).get_dtype()
    if shape != tuple(wanted.shape):
        raise CheckpointError(f"damaged: {name} has shape {shape}, not {tuple(wanted.shape)}")
    if dtype not in (("F16", "F32") if wanted.is_floating_point() else ("I64",)):
        raise CheckpointError(f"damaged: {name} holds {dtype} values")
    tensor: torch.Tensor = file.get_tensor(stored)
    if wanted.is_floating_point() and not (tensor.abs() <= _MAX_WEIGHT).all():
        raise CheckpointError(f"damaged: {name} holds values that are not numbers, or far too large")
    return tensor.to(wanted.dtype, copy=True)  # safetensors gives a view into the file, which may be replaced later


class _ShapesOnly(TorchFunctionMode):
    """Layers made inside have weights without memory.

    `torch.device("meta")` would do that to every tensor, but RegNets calculate with some while they are made.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)
