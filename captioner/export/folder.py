"""An exported model is a folder: ONNX files, and `captioner.json`, which holds all that they do not.

encoder.onnx         pixels -> features
start.onnx           features -> the state, the evidence for words, and what familiarity depends on
step.onnx            a token of each caption, the state -> logits, the state
matcher.safetensors  what finds pictures by a sentence, where the checkpoint has it
captioner.json       vocabulary, preprocessing, how to decode, provenance, digests of the other files
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save

from captioner.errors import DeviceError, OptionError, OutputError, to_install
from captioner.files import AnyPath, replacing, sha256_of
from captioner.inference.rules import Rules
from captioner.network.checkpoint import Checkpoint, load_checkpoint
from captioner.network.header import EXPORT_VERSION, EXPORTED, KEY, MATCHER, find_checkpoint, language_of, opened
from captioner.options import DecodeOptions
from captioner.pictures.load import ImageSource

if TYPE_CHECKING:
    import onnx

BITS = (32, 16, 8)
ENCODER, START, STEP = "encoder.onnx", "start.onnx", "step.onnx"


def export_model(
    checkpoint: AnyPath | None, output: AnyPath, bits: int = 32, images: Sequence[ImageSource] | None = None
) -> Path:
    """Write a checkpoint as ONNX files into the folder `output`, and return it.

    The checkpoint is named as for `captioner.load`. `bits` is 32, 16 or 8. With 8 the files are a quarter as large and
    the decoder computes exactly what the checkpoint does, whose matrices have 8 bits anyway. With `images`, too, the
    encoder computes in 8 bits, which is faster on many processors: number ranges are measured on these pictures, which
    should be like those to be captioned.
    Raises CheckpointError for the checkpoint, OptionError for other bits, InputError where no picture can be read,
    OutputError when the folder already holds a model, DeviceError without the extra `onnx`.
    """
    if bits not in BITS:
        raise OptionError(f"bits must be {', '.join(map(str, BITS[:-1]))} or {BITS[-1]}, not {bits!r}")
    if images is not None and bits != 8:
        raise OptionError("images are for 8 bits: set bits (--bits) to 8, or leave images (--images) out")
    file, folder = find_checkpoint(checkpoint), Path(output)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file: name a folder")
    if (folder / EXPORTED).exists():
        raise OutputError(f"{folder}: holds an exported model already: name another folder")
    _check_installed()
    loaded = load_checkpoint(file)
    content = _index(file, loaded, bits)
    graphs, files = _graphs(loaded, bits, images), content["files"]
    folder.mkdir(parents=True, exist_ok=True)
    for name, graph in graphs.items():
        files[name] = write(folder / name, graph.SerializeToString())
    if loaded.model.config.match_size:
        files[MATCHER] = write(folder / MATCHER, _matcher(file))
    # Last, because a folder without it is no model.
    write(folder / EXPORTED, json.dumps(content, ensure_ascii=False, indent=1).encode())
    return folder


def _check_installed() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise DeviceError(f"{name} is not installed: {to_install('onnx')}") from error


def _graphs(loaded: Checkpoint, bits: int, images: Sequence[ImageSource] | None) -> dict[str, onnx.ModelProto]:
    from captioner.export.calibration import calibrated, read
    from captioner.export.encoder import encoder_graph, with_small_weights
    from captioner.export.graphs import start_graph, step_graph
    from captioner.export.unbiased import unbiased

    decoder, pictures = loaded.model.decoder, None if images is None else read(images, loaded.preprocess)
    encoder = encoder_graph(loaded.model.encoder, loaded.model.config.encoder, loaded.preprocess)
    if pictures is not None:
        encoder = calibrated(encoder, pictures)
    elif bits < 32:
        exact, encoder = copy.deepcopy(encoder), with_small_weights(encoder, bits)
        if bits == 8:
            encoder = unbiased(encoder, exact, loaded.preprocess)
    return {ENCODER: encoder, START: start_graph(decoder, bits), STEP: step_graph(decoder, bits)}


def _index(file: Path, loaded: Checkpoint, bits: int) -> dict[str, Any]:
    """The content of captioner.json, without the digests of the files."""
    with opened(file, "numpy") as (content, _):
        header = json.loads(content.metadata()[KEY])
    options, predictor = DecodeOptions(), loaded.model.decoder.words
    rules = Rules.of(options, loaded.vocabulary)
    return {
        "export_version": EXPORT_VERSION,
        "bits": bits,
        "source": {"checkpoint": file.name, "sha256": sha256_of(file)},
        "language": language_of(file),
        "header": header,
        "decoding": {**dataclasses.asdict(options), "evidence": loaded.model.config.evidence},
        "predicted": predictor.tokens.tolist() if predictor.size else [],
        "rules": {"conjunctions": rules.conjunctions, "function_words": rules.function_words},
        "files": {},
    }


def _matcher(file: Path) -> bytes:
    """The part of a checkpoint that finds pictures by a sentence, as `inference.reader.load_reader` reads it."""
    with opened(file, "pt") as (content, _):
        names = [name for name in content.keys() if name.startswith(("matcher.", "decoder.feature_"))]  # noqa: SIM118 (no dict)
        return save({name: content.get_tensor(name) for name in names}, metadata=content.metadata())


def write(path: Path, data: bytes) -> str:
    """Write a file whole, and return its digest."""
    with replacing(path, "wb") as file:
        file.write(data)
    return sha256_of(path)
