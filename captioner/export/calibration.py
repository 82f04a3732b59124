"""The encoder in 8 bits throughout: what flows between its layers is rounded, too, so that it computes with bytes.

Each tensor needs the range of its numbers, which is measured on pictures ("static quantisation"; Jacob et al. 2018,
"Quantization and training of neural networks for efficient integer-arithmetic-only inference").
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from captioner.errors import ImageError, InputError
from captioner.export.encoder import with_small_weights, without_notes
from captioner.network.preprocess import Preprocess
from captioner.pictures.load import ImageSource

Pixels: TypeAlias = NDArray[np.uint8]
PICTURES = 100  # ranges are measured on so many at most; more hardly change them
# The first convolutions stay in float32. They are a small part of the arithmetic, and rounding does the most harm
# there.
_EXACT = 8
# Convolutions, and what stands between them: without it, bytes would turn into float32 and back after each of them.
_OPERATORS = ["Conv", "Relu", "Clip", "Add"]


def calibrated(encoder: onnx.ModelProto, pictures: Sequence[Pixels]) -> onnx.ModelProto:
    """The encoder of `encoder_graph` in 8 bits, with ranges measured on pictures, (1, S, S, 3) each."""
    exact = [node for node in encoder.graph.node if node.op_type == "Conv"][:_EXACT]
    add_pre_process_metadata(encoder)  # otherwise it recommends a step that torch's exporter makes unnecessary
    with tempfile.TemporaryDirectory() as folder:
        quantization.quantize_static(
            encoder,
            Path(folder) / "encoder.onnx",
            SimpleNamespace(get_next=partial(next, ({"pixels": picture} for picture in pictures), None)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            op_types_to_quantize=_OPERATORS,
            nodes_to_exclude=[node.name for node in exact],
        )
        found = onnx.load(Path(folder) / "encoder.onnx")
    return with_small_weights(without_notes(found), 8, {node.input[1] for node in exact})


def read(images: Sequence[ImageSource], preprocess: Preprocess) -> list[Pixels]:
    """At most PICTURES from all over the sequence, each (1, S, S, 3). Those that cannot be read are left out.

    Raises InputError where none can be read.
    """
    pictures, why = [], ""
    for image in images[:: -(-len(images) // PICTURES) or 1]:
        try:
            pixels = preprocess.read(image)
        except ImageError as error:
            why = why or f" ({error})"
        else:
            pictures.append(pixels[None])
    if not pictures:
        raise InputError(f"none of the pictures can be read{why}, so number ranges cannot be measured")
    return pictures
