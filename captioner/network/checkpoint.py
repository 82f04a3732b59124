"""One checkpoint file: weights, model config, vocabulary, preprocessing, provenance, format version.

The file is plain safetensors. Its header carries one JSON text under the key "captioner"; nothing in it is code.
Weights are stored in half precision: scores in the provenance are those of the rounded weights.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.overrides import TorchFunctionMode

from captioner.errors import CheckpointError
from captioner.files import replacing
from captioner.network.encoder import Encoder
from captioner.network.model import CaptionModel, Decoder, ModelConfig
from captioner.network.preprocess import Preprocess
from captioner.vocab import Vocabulary

FORMAT_VERSION = 2  # 1 had no `tokens`, no `cell` and what came with it
_KEY = "captioner"
# Twenty times that of 10,000 words, and the largest network of torchvision in single precision. What is larger would
# take memory before it could be seen to be wrong.
_MAX_HEADER_BYTES = 16_000_000
_MAX_FILE_BYTES = 4_000_000_000
_MAX_WEIGHT = 65_504.0  # the largest number in half precision
_MAX_SIZE = 1 << 20  # of a layer; torch cannot multiply sizes that are much larger
_MAX_LAYERS = 100
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # would garble a terminal, or cannot be written


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
    data = save(tensors, metadata={_KEY: json.dumps(content, ensure_ascii=False, sort_keys=True)})
    with replacing(path, "wb") as file:
        file.write(data)


def is_checkpoint(path: Path) -> bool:
    """Whether a file is meant to be safetensors, judged by its first bytes: a length and the start of a JSON object."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER_BYTES


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read and check a checkpoint. Raises CheckpointError, naming what is wrong; runs nothing from the file."""
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; give the .safetensors file in it")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    try:
        _check_size(path)
        with safe_open(path, framework="pt") as file:
            content = _read_content(path, file.metadata())
            vocabulary, preprocess, model = _build(path, content)
            names = {old: _current_name(old, content) for old in file.keys()}  # noqa: SIM118 (no dict)
            _check_tensors(path, {new: file.get_slice(old) for old, new in names.items()}, model)
            state = {new: file.get_tensor(old) for old, new in names.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged, or not a .safetensors file ({error})") from error
    for name, tensor in state.items():
        if tensor.is_floating_point() and not (tensor.abs() <= _MAX_WEIGHT).all():
            raise CheckpointError(f"{path}: damaged: {name} holds values that are not numbers, or far too large")
        # Copies, because what safetensors gives lies in the file, which may be replaced later.
        state[name] = tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
    if not (state["decoder.feature_std"] > 0.0).all():
        raise CheckpointError(
            f"{path}: damaged: decoder.feature_std holds zeros or less, by which features are divided"
        )
    model.load_state_dict(state, assign=True)  # strictly; the model was shapes only until now
    return Checkpoint(model.eval().to(device), vocabulary, preprocess, content["provenance"])


def _check_size(path: Path) -> None:
    """Raise CheckpointError for a file that would take more memory than a checkpoint can need."""
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise CheckpointError(f"{path}: is larger than {_MAX_FILE_BYTES / 1e9:.0f} GB: no checkpoint of captioner")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > _MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: damaged, or not a .safetensors file (a header of {header} bytes)")


def _read_content(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    if not metadata or _KEY not in metadata:
        raise CheckpointError(
            f"{path}: a safetensors file of another program (no {_KEY!r} in its header); "
            "make a checkpoint with `captioner train`"
        )
    try:
        content: dict[str, Any] = json.loads(metadata[_KEY])
    except (ValueError, RecursionError) as error:  # also for numbers of thousands of digits
        raise CheckpointError(f"{path}: damaged header ({error})") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise CheckpointError(f"{path}: damaged header: no format_version")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format version {version}, this program reads up to {FORMAT_VERSION}: update captioner"
        )
    if version < 1:
        raise CheckpointError(f"{path}: damaged header: format_version {version}")
    content = {"tokens": "word", **content} if version == 1 else content
    parts = {"model": dict, "tokens": str, "vocabulary": list, "preprocess": dict, "provenance": dict}
    for name, kind in parts.items():
        if not isinstance(content.get(name), kind):
            raise CheckpointError(f"{path}: damaged header: {name} is missing or of the wrong type")
    return content


def _current_name(name: str, content: dict[str, Any]) -> str:
    """What this version calls a tensor."""
    if content["format_version"] == 1 and name.startswith("decoder.lstm."):
        return name.replace("decoder.lstm.", "decoder.recurrent.0.cell.")
    return name


def _build(path: Path, content: dict[str, Any]) -> tuple[Vocabulary, Preprocess, CaptionModel]:
    words = content["vocabulary"]
    if not all(isinstance(word, str) and not _NOT_TEXT.search(word) for word in words):
        raise CheckpointError(f"{path}: damaged header: the vocabulary holds something that is not text")
    # Version 1 knew one kind of network, which the defaults describe.
    defaults = {"cell": "lstm", "layers": 1, "tie_embeddings": False, "variational_dropout": False}
    defaults = defaults if content["format_version"] == 1 else {}
    try:
        config: ModelConfig = _dataclass_from(ModelConfig, {**defaults, **content["model"]})
        preprocess: Preprocess = _dataclass_from(Preprocess, content["preprocess"])
        vocabulary = Vocabulary(tuple(words), content["tokens"])
        if len(vocabulary) != config.vocabulary_size:
            raise ValueError(f"{len(vocabulary)} words for an output layer of {config.vocabulary_size}")
        if preprocess.size < 1 or preprocess.size > 4096 or min(preprocess.std) < 1e-6:
            raise ValueError("impossible preprocessing")
        if max(config.hidden_size, config.embedding_size) > _MAX_SIZE or config.layers > _MAX_LAYERS:
            raise ValueError(f"sizes can be {_MAX_SIZE} at most, layers {_MAX_LAYERS}")
        # Sizes come from the file and may lie: no memory is taken for them before the tensors are seen to fit.
        with _ShapesOnly():
            encoder = Encoder(config.encoder)
            decoder = Decoder(config, encoder.feature_size)
        return vocabulary, preprocess, CaptionModel(config, encoder, decoder)
    except (ValueError, CheckpointError) as error:
        raise CheckpointError(f"{path}: damaged header: {error!s:.300}") from error


class _ShapesOnly(TorchFunctionMode):
    """Layers made inside have weights without memory.

    `torch.device("meta")` would do that to every tensor, but RegNets calculate with some while they are made.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def _dataclass_from(kind: type, values: dict[str, Any]) -> Any:
    """A dataclass from JSON, every field present and of its type. Raises ValueError naming the field."""
    hints = {"str": str, "int": int, "float": (float, int), "bool": bool}
    names = {f.name for f in dataclasses.fields(kind)}
    for name in sorted(names ^ values.keys()):
        raise ValueError(f"{name!r:.80} is {'missing' if name in names else 'unknown'} in {kind.__name__}")
    checked = dict(values)
    for f in dataclasses.fields(kind):
        value = values[f.name]
        if str(f.type).startswith("tuple"):
            triple = isinstance(value, list) and len(value) == 3
            if not triple or not all(type(v) in (int, float) and abs(v) <= 1000.0 for v in value):
                raise ValueError(f"{f.name} must be three numbers below 1000, not {value!r}")
            checked[f.name] = tuple(float(v) for v in value)
        elif isinstance(value, bool) != (f.type == "bool") or not isinstance(value, hints[str(f.type)]):  # type: ignore[arg-type]  # a type or a tuple
            raise ValueError(f"{f.name} must be {f.type}, not {value!r}")
    return kind(**checked)


def _check_tensors(path: Path, found: dict[str, Any], model: CaptionModel) -> None:
    """Compare names, shapes and types in the header with what the model config asks for."""
    wanted = model.state_dict()
    for name in sorted(wanted.keys() ^ found.keys()):
        problem = "is missing" if name in wanted else "does not belong to this model"
        raise CheckpointError(f"{path}: damaged: the tensor {name!r:.120} {problem}")
    for name, tensor in wanted.items():
        shape, dtype = tuple(found[name].get_shape()), found[name].get_dtype()
        if shape != tuple(tensor.shape):
            raise CheckpointError(f"{path}: damaged: {name} has shape {shape}, not {tuple(tensor.shape)}")
        if dtype not in (("F16", "F32") if tensor.is_floating_point() else ("I64",)):
            raise CheckpointError(f"{path}: damaged: {name} holds {dtype} values")
