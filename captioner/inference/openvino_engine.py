"""The encoder for OpenVINO, mostly in 8-bit integers: faster than torch on servers without a GPU.

`export_encoder` writes the file, `OpenVinoEncoder` runs it. The decoder stays with torch.
Needs the extra: pip install "captioner[openvino]".
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captioner.errors import DeviceError, ImageError, InputError, OutputError, to_install
from captioner.files import replacing, sha256_of
from captioner.network.checkpoint import load_checkpoint
from captioner.network.encoder import fuse_for_inference
from captioner.network.preprocess import Preprocess
from captioner.pictures.load import ImageSource, load_image

PICTURES = 300  # number ranges are measured on so many at most; more would hardly change them
# The first convolutions stay in bfloat16 or float32. They are a small part of the arithmetic, and rounding them to
# 8 bits does the most harm.
_EXACT = 8
_STAMP = ["captioner", "checkpoint"]  # where the file keeps the digest of the checkpoint that it was made from


def encoder_file(checkpoint: Path) -> Path:
    """The exported encoder of a checkpoint: the .xml file beside it, whose weights are in a .bin file."""
    return checkpoint.with_suffix(".xml")


def export_encoder(checkpoint: Path, images: Sequence[ImageSource], output: Path) -> Path:
    """Write a checkpoint's encoder for OpenVINO and a copy of the checkpoint into the folder `output`; return the copy.

    Number ranges are measured on `images`, on PICTURES of them at most. These should be like the pictures that will be
    captioned; those that cannot be read are left out.
    Raises InputError when none can be read, OutputError when the folder already holds such a file, DeviceError when
    the extra is not installed.
    """
    openvino, nncf = _import("openvino"), _import("nncf")
    copy = output / checkpoint.name
    if copy.exists() or encoder_file(copy).exists():
        raise OutputError(f"{copy}: is there already: name another folder")
    loaded = load_checkpoint(checkpoint)
    preprocess = loaded.preprocess
    measured = _read(images, preprocess)
    shape = 3, preprocess.size, preprocess.size
    fused = fuse_for_inference(loaded.model.encoder)
    network = openvino.convert_model(fused, example_input=torch.zeros(2, *shape), input=[-1, *shape])
    nncf.set_log_level(logging.WARNING)  # otherwise it lists what it does to each layer
    nodes = [node for node in network.get_ordered_ops() if node.get_type_name() in ("Convolution", "GroupConvolution")]
    exact = nncf.IgnoredScope(names=[node.get_friendly_name() for node in nodes[:_EXACT]])
    dataset, preset = nncf.Dataset(measured), nncf.QuantizationPreset.MIXED
    network = nncf.quantize(network, dataset, preset=preset, subset_size=len(measured), ignored_scope=exact)
    # Pictures come in as bytes, channels last. Normalising them becomes the first layer.
    steps = openvino.preprocess.PrePostProcessor(network)
    picture = steps.input()
    picture.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    picture.model().set_layout(openvino.Layout("NCHW"))
    mean, std = ([255.0 * value for value in values] for values in (preprocess.mean, preprocess.std))
    picture.preprocess().convert_element_type(openvino.Type.f32).mean(mean).scale(std)
    network = steps.build()
    network.set_rt_info(sha256_of(checkpoint), _STAMP)
    output.mkdir(parents=True, exist_ok=True)
    openvino.save_model(network, encoder_file(copy), compress_to_fp16=False)
    with replacing(copy, "wb") as file:  # last, because the other files cannot be used without it
        file.write(checkpoint.read_bytes())
    return copy


class OpenVinoEncoder:
    """What `export_encoder` wrote, ready to run on `threads` processors. Threads may share it.

    `precision` is "float32" or "bfloat16" and applies to what is not in 8 bits.
    Raises DeviceError when the file is missing, damaged or of another checkpoint, or the extra is not installed.
    """

    def __init__(self, checkpoint: Path, threads: int, precision: str) -> None:
        openvino = _import("openvino")
        path = encoder_file(checkpoint)
        if not path.is_file():
            raise DeviceError(f"{path}: no such encoder: make it with `captioner export`")
        try:
            core = openvino.Core()
            network = core.read_model(path)
            stamp = network.get_rt_info(_STAMP).astype(str) if network.has_rt_info(_STAMP) else None
            if stamp != sha256_of(checkpoint):
                raise DeviceError(f"{path}: is not the encoder of {checkpoint}: make it anew with `captioner export`")
            # As many batches at a time as there are threads, one on each: see `Captioner._stream`.
            settings = {
                "PERFORMANCE_HINT": "THROUGHPUT",
                "NUM_STREAMS": str(threads),
                "INFERENCE_NUM_THREADS": str(threads),
                "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
            }
            self._compiled = core.compile_model(network, "CPU", settings)
        except RuntimeError as error:
            raise DeviceError(f"{path}: damaged, or not a file of `captioner export`") from error
        self._local = threading.local()

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 as `Preprocess.batch` makes them -> features (B, F), float32."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        found = self._local.request.infer([np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())])
        return torch.from_numpy(found[0].copy())  # the next batch reuses this memory


def _read(images: Sequence[ImageSource], preprocess: Preprocess) -> list[npt.NDArray[np.float32]]:
    """PICTURES from all over the sequence, each (1, 3, S, S) as the encoder reads it. Raises InputError for none."""
    read, why = [], ""
    for image in images[:: -(-len(images) // PICTURES) or 1]:
        try:
            pixels = preprocess.pixels(load_image(image))
        except ImageError as error:
            why = why or f" ({error})"
        else:
            read.append(preprocess.normalise(pixels[None]).contiguous().numpy())
    if not read:
        raise InputError(f"none of the pictures can be read{why}, so number ranges cannot be measured")
    return read


def _import(name: str) -> ModuleType:
    # Both packages would report their use to their makers through this module. Without it they do not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: it cannot be imported
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeviceError(f"{name} is not installed: {to_install('openvino')}") from error
