"""The encoder as a graph, with the normalisation of pixels in front of it.

torch draws it, with its exporter for captured programs. It is the one that torch develops further, and its graphs have
fixed shapes but for the batch: the older one (`dynamo=False`) leaves five times as many nodes in a ShuffleNet, and
padding apart from the convolutions of an EfficientNet-Lite.
Shapes: B pictures, S image side, F feature.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from captioner.errors import CheckpointError
from captioner.export.weights import OPSET, Array, finished, quantised, shrunk
from captioner.network.convolutions import folded_for_inference
from captioner.network.encoder import Encoder
from captioner.network.preprocess import Preprocess

_WEIGHTED = ("Conv", "Gemm", "MatMul")  # operators whose second input holds nearly all weights
_FEW = 0.03  # of all numbers


class _FromPixels(nn.Module):
    """The encoder behind `Preprocess.normalise`: (B, S, S, 3) uint8 -> (B, F)."""

    def __init__(self, encoder: Encoder, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = folded_for_inference(encoder)
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(preprocess.mean) * 255.0)
        self.register_buffer("pixel_std", torch.tensor(preprocess.std) * 255.0)

    def forward(self, pixels: Tensor) -> Tensor:
        normal = (pixels.to(torch.float32) - self.pixel_mean) / self.pixel_std
        features: Tensor = self.network(normal.permute(0, 3, 1, 2))
        return features


def encoder_graph(encoder: Encoder, name: str, preprocess: Preprocess) -> onnx.ModelProto:
    """`pixels` (B, S, S, 3) uint8 -> `features` (B, F), with weights in float32.

    `name` is that of the encoder. Raises CheckpointError where torch cannot export it.
    """
    network = _FromPixels(encoder, preprocess).eval()
    pixels = torch.zeros(2, preprocess.size, preprocess.size, 3, dtype=torch.uint8)
    batch = torch.export.Dim("B")
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what torch uses of itself
            program = torch.onnx.export(
                network,
                (pixels,),
                input_names=["pixels"],
                output_names=["features"],
                dynamic_shapes=({0: batch},),
                opset_version=OPSET,
                dynamo=True,
                optimize=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise CheckpointError(
            f"torch {torch.__version__} cannot export the encoder {name}: install a newer torch"
        ) from error
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None  # it is None only where a file was named
    return finished(without_notes(program.model_proto))


def without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what torch notes in it of the programs it came from, such as names of files."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    return model


def with_small_weights(model: onnx.ModelProto, bits: int, halves: Collection[str] | None = None) -> onnx.ModelProto:
    """The model with weights of convolutions and linear layers kept in 16 bits, or in 8 with a scale for each output.

    In 8 bits, the weights called `halves` have 16. By default, these are those of layers that have few: the first ones,
    and those that filter each channel by itself. Rounding them does most of the harm and saves next to nothing.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = {node.input[1]: node for node in model.graph.node if node.op_type in _WEIGHTED and node.input[1] in tensors}
    weights = {name: numpy_helper.to_array(tensors[name]) for name in uses}
    if bits == 16 or halves is None:
        halves = weights.keys() if bits == 16 else _few(weights)
    kept = [tensor for name, tensor in tensors.items() if name not in weights]
    nodes: list[onnx.NodeProto] = []
    for name, values in weights.items():
        parts = (values.astype(np.float16), None) if name in halves else quantised(values, _outputs(uses[name], values))
        more, makers = shrunk(name, *parts)
        kept += more
        nodes += makers
    nodes += model.graph.node
    for field, content in (("initializer", kept), ("node", nodes)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(content)
    return finished(model)


def _few(weights: Mapping[str, Array]) -> set[str]:
    """The names of the smallest weights, which together are hardly any of all the numbers."""
    left = _FEW * sum(values.size for values in weights.values())
    names = set()
    for name, values in sorted(weights.items(), key=lambda item: item[1].size):
        left -= values.size
        if left < 0:
            break
        names.add(name)
    return names


def _outputs(node: onnx.NodeProto, weights: Array) -> int:
    """The axis of an operator's weights that counts its outputs."""
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or turned else weights.ndim - 1
