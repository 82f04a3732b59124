"""The checkpoints that come with captioner, and the headers of all checkpoints. Nothing here needs torch.

A checkpoint is one file of plain safetensors. Its header carries a JSON text under the key "captioner".
A shipped file is called NAME-ENCODER.safetensors: flickr8k-mobilenet_v2.safetensors is `flickr8k`.
An exported model is a folder with the same JSON text in its file captioner.json, which stands for the folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from captioner.errors import CheckpointError
from captioner.files import sha256_of
from captioner.network.config import ModelConfig, Trust
from captioner.vocab import Vocabulary

DEFAULT = "flickr8k"
# Of shipped checkpoints, in the words of their speakers.
LANGUAGES = {"flickr8k": "English", "flickr8k-zh": "中文", "flickr8k-de": "Deutsch"}
_TAGS = {"flickr8k": "en", "flickr8k-zh": "zh", "flickr8k-de": "de"}

KEY = "captioner"
# Version 1 had neither `tokens` nor `cell` and `layers`. Version 2 had two options that are gone: see _GONE.
# Version 3 had no `spellings` and none of the model's options that have a default; all weights had half precision.
# Version 4 had no matcher.
FORMAT_VERSION = 5
EXPORTED, MATCHER = "captioner.json", "matcher.safetensors"
EXPORT_VERSION = 1
_GONE = ("tie_embeddings", "variational_dropout")
_PARTS = {"model": dict, "tokens": str, "vocabulary": list, "spellings": dict, "preprocess": dict, "provenance": dict}
# What JSON gives, by a field's type. True and false are no numbers.
_TYPES = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
# A file is refused for its size before it takes memory. Both limits are far above what a checkpoint needs: a
# vocabulary of 10,000 words, and the largest network of torchvision in single precision.
_MAX_HEADER_BYTES = 16_000_000
_MAX_FILE_BYTES = 4_000_000_000
_MAX_SIZE = 1 << 20  # of a layer; torch cannot multiply sizes that are much larger
_MAX_LAYERS = 100
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # would garble a terminal, or cannot be written


@dataclass(frozen=True)
class Header:
    """What a checkpoint says about itself. `preprocess` is checked where it is used, in `checkpoint.py`."""

    version: int
    config: ModelConfig
    vocabulary: Vocabulary
    preprocess: dict[str, Any]
    provenance: dict[str, Any]
    trust: Trust | None


@dataclass(frozen=True)
class Model:
    """A shipped checkpoint: `captioner.load` takes its name. `size` is in bytes; `scores` are those of validation."""

    name: str
    path: Path
    language: str
    size: int
    encoder: str
    cell: str
    vocabulary_size: int
    tokens: str
    scores: dict[str, float]


def models() -> list[Model]:
    """The checkpoints that come with captioner, the default one first. Raises CheckpointError for a damaged one."""
    found = []
    for name, path in shipped_checkpoints().items():
        header = read_header(path)
        config, vocabulary, size = header.config, header.vocabulary, size_of(path)
        scores = header.provenance.get("validation", {})
        scores = {metric: value for metric, value in scores.items() if type(value) in (int, float)}
        network = (config.encoder, config.cell, len(vocabulary), vocabulary.tokens)
        found.append(Model(name, path, LANGUAGES.get(name, ""), size, *network, scores))
    return found


def shipped_checkpoints() -> dict[str, Path]:
    """The files of shipped checkpoints by name, the default one first; empty where none came along."""
    package = Path(__file__).parent.parent
    for folder in (package / "checkpoints", package.parent / "checkpoints"):  # installed; in a clone
        files = {path.stem.rpartition("-")[0]: path for path in folder.glob("*-*.safetensors")}
        files = files or {path.parent.name.rpartition("-")[0]: path for path in folder.glob(f"*-*/{EXPORTED}")}
        if files:
            return dict(sorted(files.items(), key=lambda item: (item[0] != DEFAULT, item[0])))
    return {}


def language_of(file: Path | None) -> str:
    """The tag of the language of a shipped checkpoint, such as "en"; empty for other files, which tell none."""
    return next((_TAGS.get(name, "") for name, path in shipped_checkpoints().items() if path == file), "")


def find_checkpoint(name: str | os.PathLike[str] | None = None) -> Path:
    """The file that is meant by a path, by the name of a shipped checkpoint, or by None, the default one.

    Of the folder of an exported model, it is the file captioner.json.

    The name of a shipped checkpoint comes before a file of that name in the current folder, which is `./flickr8k`.
    Raises CheckpointError when there is neither.
    """
    shipped, wanted = shipped_checkpoints(), DEFAULT if name is None else os.fspath(name)
    if wanted in shipped:
        return shipped[wanted]
    if name is None:
        raise CheckpointError("the shipped checkpoint is not there: give a file with --checkpoint")
    path = Path(wanted)
    if (path / EXPORTED).is_file():
        return path / EXPORTED
    if (path.suffix == ".onnx" or path.name == MATCHER) and path.with_name(EXPORTED).is_file():
        raise CheckpointError(f"{path}: is a part of an exported model: give its folder")
    if path.name == wanted and not path.suffix and not path.exists():
        raise CheckpointError(f"{name}: no such checkpoint: give a file, or one of {', '.join(shipped)}")
    return path


def is_checkpoint(path: Path) -> bool:
    """Whether a file is meant to be safetensors, judged by its first bytes: a length and the start of a JSON object."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER_BYTES


def is_exported(path: Path) -> bool:
    """Whether what `find_checkpoint` gives stands for the folder of an exported model."""
    return path.name == EXPORTED


def title_of(path: Path) -> str:
    """What a model of a person is called: as its file, or the folder of an exported one."""
    return path.resolve().parent.name if is_exported(path) else path.stem


def size_of(path: Path) -> int:
    """The bytes of a checkpoint, or of all files of an exported model."""
    return sum(part.stat().st_size for part in (path.parent.iterdir() if is_exported(path) else [path]))


def read_header(path: Path) -> Header:
    """The header of a checkpoint file, or of an exported model. Raises CheckpointError, naming what is wrong."""
    if is_exported(path):
        return _read_index(path)[0]
    with opened(path, "numpy") as (_, header):
        return header


def read_export(path: Path) -> tuple[Header, dict[str, Any]]:
    """The header of an exported model, and what else its file captioner.json says: `bits`, `predicted`, and the
    digests of the other `files`.

    Raises CheckpointError, naming what is wrong, also for a file that is not the one that was exported.
    """
    header, content = _read_index(path)
    for name, digest in content["files"].items():
        file = path.with_name(name)
        try:
            found = sha256_of(file)
        except FileNotFoundError as error:
            raise CheckpointError(f"{path.parent}: a file is missing ({file}): export the model anew") from error
        if found != digest:
            raise CheckpointError(f"{file}: is not the file that was exported: export it anew")
    return header, content


def _read_index(path: Path) -> tuple[Header, dict[str, Any]]:
    """The same without a look at the other files, which takes longer than all else. Raises CheckpointError."""
    try:
        if path.stat().st_size > _MAX_HEADER_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_bytes())
        version = content["export_version"]
        if version != EXPORT_VERSION:
            hint = f"this program reads {EXPORT_VERSION}: export the model anew"
            raise CheckpointError(f"{path}: has export_version {version!r:.20}, {hint}")
        header = _checked(content["header"])
        if content["bits"] not in (8, 16, 32) or not all(type(token) is int for token in content["predicted"]):
            raise ValueError("bits or predicted is not what it should be")
        if not all(isinstance(text, str) for item in content["files"].items() for text in item):
            raise ValueError("files is not what it should be")
        if any(Path(name).name != name for name in content["files"]):
            raise ValueError("files is not what it should be")
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged: {error!s:.300}") from error
    return header, content


@contextmanager
def opened(path: Path, framework: str) -> Iterator[tuple[Any, Header]]:
    """A checkpoint opened with safetensors for a framework ("numpy" or "pt"), and its header.

    Raises CheckpointError, naming the file and what is wrong with it. That includes what is raised while the file is
    open: a ValueError then means that the header is damaged.
    """
    try:
        if path.is_dir():
            if any(path.glob("*.onnx")):
                raise CheckpointError(f"has no {EXPORTED}: its export was not finished")
            raise CheckpointError("is a folder; give the .safetensors file in it")
        if is_exported(path):
            raise CheckpointError("is an exported model, and this needs the .safetensors file that it was made from")
        if not path.is_file():
            raise CheckpointError("no such checkpoint")
        if (size := path.stat().st_size) == 0:
            raise CheckpointError("the file is empty")
        if size > _MAX_FILE_BYTES:
            raise CheckpointError(f"is larger than {_MAX_FILE_BYTES / 1e9:.0f} GB: no checkpoint of captioner")
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise CheckpointError(f"damaged, or not a .safetensors file (a header of {length} bytes)")
        with safe_open(path, framework=framework) as file:
            yield file, _parsed(file.metadata() or {})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error!s:.300}") from error
    except (ValueError, RecursionError) as error:  # not JSON, nested too deeply, or not as it should be
        raise CheckpointError(f"{path}: damaged header: {error!s:.300}") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged, or not a .safetensors file ({error})") from error


def read_weights(content: Any, name: str, shape: tuple[int, ...] | None) -> npt.NDArray[np.float32]:
    """Weights of a checkpoint that is `opened` for NumPy, in float32; `shape` None stands for any list of numbers.

    Matrices of 8 bits are multiplied by the scales of their rows. Raises CheckpointError if they are not what they
    should be.
    """
    names = set(content.keys())
    if name not in names:
        raise CheckpointError(f"damaged: the tensor {name!r:.120} is missing")
    weights = content.get_tensor(name)
    scale = content.get_tensor(f"{name}.scale") if f"{name}.scale" in names else np.ones(1, dtype=np.float32)
    if weights.shape != shape and not (shape is None and weights.ndim == 1):
        raise CheckpointError(f"damaged: {name} has shape {weights.shape}, not {shape}")
    if weights.dtype not in (np.int8, np.float16, np.float32) or scale.shape not in ((1,), (len(weights), 1)):
        raise CheckpointError(f"damaged: {name} holds {weights.dtype} values")
    found = weights.astype(np.float32) * scale
    if not np.isfinite(found).all():
        raise CheckpointError(f"damaged: {name} holds values that are not numbers")
    return np.asarray(found, dtype=np.float32)


def _parsed(metadata: dict[str, str]) -> Header:
    """The header, of any version. Raises CheckpointError, or ValueError where it is damaged."""
    if KEY not in metadata:
        hint = "make a checkpoint with `captioner train`"
        raise CheckpointError(f"a safetensors file of another program (no {KEY!r} in its header); {hint}")
    return _checked(json.loads(metadata[KEY]))


def _checked(content: Any) -> Header:
    """The header from its JSON, of any version. Raises CheckpointError, or ValueError where it is damaged."""
    version = content.get("format_version") if isinstance(content, dict) else None
    if type(version) is not int:
        raise ValueError("no format_version")
    if not 1 <= version <= FORMAT_VERSION:
        hint = f"this program reads 1 to {FORMAT_VERSION}: update captioner"
        raise CheckpointError(f"has format_version {version}, {hint}")
    if version == 1:
        content = {"tokens": "word", **content}
    if version < 4:
        content = {"spellings": {}, **content}
    for name, kind in _PARTS.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"{name} is missing or of the wrong type")
    config, words = _config(content["model"], version), content["vocabulary"]
    if not all(isinstance(word, str) and not _NOT_TEXT.search(word) for word in words):
        raise ValueError("the vocabulary holds something that is not text")
    spellings = content["spellings"]
    if not all(isinstance(form, str) and form.lower() == word for word, form in spellings.items()):
        raise ValueError("the spellings hold something that is no spelling of its word")
    vocabulary = Vocabulary(tuple(words), content["tokens"], spellings)
    if len(vocabulary) != config.vocabulary_size:
        raise ValueError(f"{len(vocabulary)} words for an output layer of {config.vocabulary_size}")
    trust = _trust(content.get("trust"))
    return Header(version, config, vocabulary, content["preprocess"], content["provenance"], trust)


def _trust(values: Any) -> Trust | None:
    if values is None:  # of a version before 4, or of a run with too few pictures to tell
        return None
    if not isinstance(values, dict) or values.keys() != {field.name for field in dataclasses.fields(Trust)}:
        raise ValueError("trust is not what it should be")
    lists: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if not all(isinstance(lists[name], tuple) for name in ("confidence", "familiar", "words")):
        raise ValueError("trust holds something else than lists of numbers")
    return Trust(**lists)


def _config(values: dict[str, Any], version: int) -> ModelConfig:
    if version == 1:  # it knew one kind of network
        values = {"cell": "lstm", "layers": 1, **values}
    for name in _GONE if version == 2 else ():
        if (value := values.pop(name, None)) is not False:
            raise ValueError(f"{name} must be false, not {value!r}: this version of captioner no longer has it")
    if version < FORMAT_VERSION:
        fields = dataclasses.fields(ModelConfig)
        values = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING} | values
    config: ModelConfig = dataclass_from(ModelConfig, values)
    sizes = (config.hidden_size, config.embedding_size, config.words, config.names, config.links, config.match_size)
    if max(sizes) > _MAX_SIZE or config.layers > _MAX_LAYERS:
        raise ValueError(f"sizes can be {_MAX_SIZE} at most, layers {_MAX_LAYERS}")
    return config


def dataclass_from(kind: type, values: dict[str, Any]) -> Any:
    """A dataclass from JSON, every field present and of its type. Raises ValueError naming the field."""
    wanted = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    for name in sorted(wanted.keys() ^ values.keys()):
        raise ValueError(f"{name!r:.80} is {'missing' if name in wanted else 'unknown'} in {kind.__name__}")
    for name, value in values.items():
        if wanted[name] in _TYPES:
            if type(value) not in _TYPES[wanted[name]]:
                raise ValueError(f"{name} must be {wanted[name]}, not {value!r}")
        elif not _is_triple(value):
            raise ValueError(f"{name} must be three numbers below 1000, not {value!r}")
    return kind(**{name: tuple(map(float, v)) if isinstance(v, list) else v for name, v in values.items()})


def _is_triple(value: Any) -> bool:
    return type(value) is list and len(value) == 3 and all(type(v) in (int, float) and abs(v) <= 1000.0 for v in value)
