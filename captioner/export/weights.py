"""How weights are kept in an exported file, and a builder of graphs.

With 32 bits they are float32, with 16 float16, and with 8 they are whole numbers and a scale for each row. Of the last
two the graph makes float32 by Cast and Mul. Engines do this once, when they load the file, so it costs no time
afterwards. With DequantizeLinear instead, onnxruntime would do it in every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 18  # onnxruntime, onnxruntime-web and OpenVINO read it
_IR_VERSION = 10  # of the file format: older programs read it, too
_TOKENS = "tokens"  # the only input of whole numbers
Array: TypeAlias = NDArray[Any]
Shapes: TypeAlias = Mapping[str, Sequence["int | str"]]


def quantised(weights: Array, axis: int) -> tuple[Array, Array]:
    """Weights as int8 from -127 to 127, and the float32 scale by which each row along `axis` is multiplied."""
    others = tuple(other for other in range(weights.ndim) if other != axis)
    scale = np.asarray(np.abs(weights).max(axis=others, keepdims=True) / 127, dtype=np.float32)
    return np.round(weights / np.maximum(scale, np.finfo(np.float32).tiny)).astype(np.int8), scale


def shrunk(name: str, values: Array, scale: Array | None) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """The tensors and nodes that make the float32 tensor called `name` of float16, or of int8 and its scale."""
    kept, whole = f"{name}.kept", name if scale is None else f"{name}.whole"
    tensors = [_tensor(values, kept)]
    nodes = [helper.make_node("Cast", [kept], [whole], to=TensorProto.FLOAT)]
    if scale is not None:
        tensors.append(_tensor(scale, f"{name}.scale"))
        nodes.append(helper.make_node("Mul", [whole, f"{name}.scale"], [name]))
    return tensors, nodes


def coarser(model: onnx.ModelProto, bits: Mapping[str, int]) -> onnx.ModelProto:
    """The model with some of its weights of 8 bits rounded to fewer: to `bits` where a name begins with a key of it.

    They stay int8 and take fewer different values, so that a packed file is smaller.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, left in bits.items():
        for kept in [tensor for other, tensor in tensors.items() if other.startswith(name) and other.endswith(".kept")]:
            scale = tensors[kept.name.removesuffix("kept") + "scale"]
            times = np.float32(2 ** (8 - left))
            kept.CopyFrom(_tensor(np.round(numpy_helper.to_array(kept) / times).astype(np.int8), kept.name))
            scale.CopyFrom(_tensor(numpy_helper.to_array(scale) * times, scale.name))
    return finished(model)


def _tensor(values: Array, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


class Graph:
    """A graph that grows node by node. Its methods take and return the names of tensors."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """The result of an operator, called `to`."""
        to = to or f"{kind}_{len(self._nodes)}"
        self.several(kind, *inputs, to=[to], **attributes)
        return to

    def several(self, kind: str, *inputs: str, to: Sequence[str], **attributes: Any) -> None:
        """The results of an operator, called `to`; "" leaves one out."""
        self._nodes.append(helper.make_node(kind, inputs, to, **attributes))

    def constant(self, values: Any) -> str:
        """Numbers as they are: whole ones become int64, others float32."""
        array = np.asarray(values)
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        self._tensors.append(numpy_helper.from_array(array.astype(kind), f"constant_{len(self._tensors)}"))
        return self._tensors[-1].name

    def weight(self, name: str, values: Array, scale: Array | None) -> str:
        """Weights in float32, of float32, of float16, or of int8 and their scale. In the last two they keep a name."""
        if values.dtype == np.float32:
            return self.constant(values)
        tensors, nodes = shrunk(name, values, scale)
        self._tensors += tensors
        self._nodes += nodes
        return name

    def model(self, name: str, inputs: Shapes, outputs: Shapes) -> onnx.ModelProto:
        """The finished model. Sides of tensors are numbers, or names where they may be any number."""
        graph = helper.make_graph(self._nodes, name, _described(inputs), _described(outputs), self._tensors)
        return finished(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]))


def _described(shapes: Shapes) -> list[onnx.ValueInfoProto]:
    kinds = {name: TensorProto.INT64 if name == _TOKENS else TensorProto.FLOAT for name in shapes}
    return [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in shapes.items()]


def finished(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, checked, with what names its maker."""
    model.ir_version, model.producer_name, model.producer_version = _IR_VERSION, "captioner", ""
    onnx.checker.check_model(model, full_check=True)
    return model
