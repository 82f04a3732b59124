"""The encoder as OpenVINO runs it instead of torch, mostly in whole numbers of 8 bits: for servers without a GPU.

`export_encoder` makes the file, with the pictures that its number ranges are measured on; `OpenVinoEncoder` runs it.
The decoder stays with torch. Needs the extra: pip install "captioner[openvino]".
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captioner.errors import DeviceError, ImageError
from captioner.files import replacing, sha256_of
from captioner.network.checkpoint import load_checkpoint
from captioner.network.encoder import fuse_for_inference
from captioner.network.preprocess import Preprocess
from captioner.pictures.load import ImageSource, load_image

PICTURES = 300  # measured at most; further ones change the ranges little
# The convolutions that look at the picture first stay in bfloat16 or float32: they are few channels and a small part of
# the arithmetic, and rounded to 8 bits they do the most harm.
_EXACT = 8
_STAMP = ["captioner", "checkpoint"]  # where the file says which checkpoint's encoder it is


def encoder_file(checkpoint: Path) -> Path:
    """Where the exported encoder of a checkpoint lies: beside it, as .xml, with its weights as .bin."""
    return checkpoint.with_suffix(".xml")


def export_encoder(checkpoint: Path, images: Sequence[ImageSource], output: Path) -> Path:
    """Write a checkpoint's encoder for OpenVINO and a copy of the checkpoint into the folder `output`; return the copy.

    Number ranges come from `images`, PICTURES of them at most: pictures such as will be captioned, those that cannot be
    read left out. Raises DeviceError when none can be read, when the extra is not installed, or when the folder
    already holds such a file.
    """
    openvino, nncf = _import("openvino"), _import("nncf")
    copy = output / checkpoint.name
    if copy.exists() or encoder_file(copy).exists():
        raise DeviceError(f"{copy}: is there already: name another folder")
    loaded = load_checkpoint(checkpoint)
    preprocess = loaded.preprocess
    measured, failures = _read(images, preprocess)
    if not measured:
        why = f" ({failures[0]})" if failures else ""
        raise DeviceError(f"none of the pictures can be read{why}, so no number ranges can be measured")
    side = preprocess.size
    network = openvino.convert_model(
        fuse_for_inference(loaded.model.encoder),
        example_input=torch.zeros(2, 3, side, side),
        input=[-1, 3, side, side],
    )
    convolutions = [
        node.get_friendly_name()
        for node in network.get_ordered_ops()
        if node.get_type_name() in ("Convolution", "GroupConvolution")
    ]
    network = nncf.quantize(
        network,
        nncf.Dataset(measured),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(measured),
        ignored_scope=nncf.IgnoredScope(names=convolutions[:_EXACT]),
    )
    # The picture comes as bytes, channels last; its preprocessing becomes the first layer.
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
    with replacing(copy, "wb") as file:  # last: without it, what lies there is of no use
        file.write(checkpoint.read_bytes())
    return copy


class OpenVinoEncoder:
    """What `export_encoder` wrote, ready to run on `threads` processors; it may be shared by threads.

    `precision` is "float32" or "bfloat16", for what is not in 8 bits.
    Raises DeviceError when the file is missing, damaged or made from another checkpoint, or the extra is not installed.
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
            # As many pictures' batches at a time as there are threads, each on one of its own: see `Captioner`.
            self._compiled = core.compile_model(
                network,
                "CPU",
                {
                    "PERFORMANCE_HINT": "THROUGHPUT",
                    "NUM_STREAMS": str(threads),
                    "INFERENCE_NUM_THREADS": str(threads),
                    "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
                },
            )
        except RuntimeError as error:
            raise DeviceError(f"{path}: damaged, or not a file of `captioner export`") from error
        self._local = threading.local()

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 as `Preprocess.batch` makes them -> features (B, F), float32."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        found = self._local.request.infer([np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())])
        return torch.from_numpy(found[0].copy())  # the next batch is written to the same memory


def _read(
    images: Sequence[ImageSource], preprocess: Preprocess
) -> tuple[list[npt.NDArray[np.float32]], list[ImageError]]:
    """PICTURES of the whole sequence evenly, each (1, 3, S, S) as the encoder takes it, and what cannot be read."""
    read, failures = [], []
    for image in images[:: -(-len(images) // PICTURES) or 1]:
        try:
            pixels = preprocess.pixels(load_image(image))
        except ImageError as error:
            failures.append(error)
        else:
            read.append(preprocess.normalise(pixels[None]).contiguous().numpy())
    return read, failures


def _import(name: str) -> ModuleType:
    # Through which both would report their use to their makers; without it they do not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: it cannot be imported
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeviceError(f'{name} is not installed: pip install "captioner[openvino]"') from error
