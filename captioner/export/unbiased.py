"""What rounding weights does to a layer on average, taken back by its bias.

Each weight is rounded by itself, and the inputs of a layer are hardly ever 0 on average. So its outputs are shifted,
and the shifts of all layers add up. They are known once the average inputs are, and the bias can take them back (Nagel
et al. 2019, "Data-free quantization through weight equalization and bias correction"). The averages are those of the
sample photographs: what a layer sees on average hardly depends on the pictures.
Shapes: B pictures, S image side, C channels.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from captioner.export.weights import finished
from captioner.network.preprocess import Preprocess
from captioner.pictures.load import load_image
from captioner.pictures.sample_pictures import SAMPLES

# Parts of a photograph, as left, top and side, in shares of its own: a few photographs become many.
_PARTS = ((0, 0, 1), (0, 0, 0.6), (0.4, 0, 0.6), (0, 0.4, 0.6), (0.4, 0.4, 0.6), (0.2, 0.2, 0.6), (0.3, 0.3, 0.4))


def unbiased(small: onnx.ModelProto, exact: onnx.ModelProto, preprocess: Preprocess) -> onnx.ModelProto:
    """The encoder `small`, whose convolutions give on average what those of `exact` give.

    `small` is what `with_small_weights` made of `exact` with 8 bits.
    """
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in small.graph.initializer}
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in exact.graph.initializer}
    rounded = {name for name in weights if f"{name}.scale" in tensors}
    layers = [node for node in small.graph.node if node.op_type == "Conv" and node.input[1] in rounded]
    averages = _averages(exact, {node.input[0] for node in layers}, preprocess) if layers else {}
    for node in layers:
        inputs, name, *biases = node.input
        kept, scale = (tensors[f"{name}.{part}"] for part in ("kept", "scale"))
        lost = (weights[name] - kept * scale).sum((2, 3))  # (C', C / groups)
        groups = len(averages[inputs]) // lost.shape[1]
        lost, average = lost.reshape(groups, -1, lost.shape[1]), averages[inputs].reshape(groups, -1)
        shift = np.einsum("goi,gi->go", lost, average).reshape(-1)
        bias = f"{name}.bias"  # of its own: two layers may share one
        values = (shift + (tensors[biases[0]] if biases else 0.0)).astype(np.float32)
        small.graph.initializer.append(numpy_helper.from_array(values, bias))
        del node.input[2:]
        node.input.append(bias)
    used = {name for node in small.graph.node for name in node.input}
    left = [tensor for tensor in small.graph.initializer if tensor.name in used]
    small.graph.ClearField("initializer")
    small.graph.initializer.extend(left)
    return finished(small)


def _averages(model: onnx.ModelProto, names: Collection[str], preprocess: Preprocess) -> dict[str, NDArray[np.float32]]:
    """The averages of some tensors (B, C, H, W) in a model, (C,) each, over parts of the sample photographs."""
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), "axes_of_averages"))
    for name in names:
        to = f"{name}.average"
        probe.graph.node.append(helper.make_node("ReduceMean", [name, "axes_of_averages"], [to], keepdims=0))
        probe.graph.output.append(helper.make_tensor_value_info(to, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run([f"{name}.average" for name in names], {"pixels": _pixels(preprocess)})
    return dict(zip(names, found, strict=True))


def _pixels(preprocess: Preprocess) -> NDArray[np.uint8]:
    """Parts of the sample photographs, each also mirrored, (B, S, S, 3)."""
    squeezed = []
    for path in SAMPLES.values():
        photograph = load_image(path)
        width, height = photograph.size
        for left, top, side in _PARTS:
            box = (left * width, top * height, (left + side) * width, (top + side) * height)
            part = photograph.crop(box)
            for picture in (part, part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
                squeezed.append(preprocess.pixels(picture))
    return np.stack(squeezed)
