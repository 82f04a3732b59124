"""Biases take back what rounding weights does on average."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from captioner.network.preprocess import Preprocess
from captioner.pictures.load import load_image
from captioner.pictures.sample_pictures import SAMPLES

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from captioner.export.unbiased import unbiased  # noqa: E402  # it needs onnx
from captioner.export.weights import finished, shrunk  # noqa: E402

PREPROCESS = Preprocess(size=32)
SIZES = ((8, 3, 3, 3), (8, 2, 3, 3), (6, 8, 1, 1))  # the second in four groups
GROUPS = (1, 4, 1)


def network(bits: int, biases: bool = True) -> onnx.ModelProto:
    """Three layers of random weights, in float32 or rounded to so many bits."""
    random = np.random.default_rng(0)
    nodes = [onnx.helper.make_node("Cast", ["pixels"], ["float"], to=onnx.TensorProto.FLOAT)]
    nodes.append(onnx.helper.make_node("Transpose", ["float"], ["x0"], perm=[0, 3, 1, 2]))
    tensors = []
    for place, (size, groups) in enumerate(zip(SIZES, GROUPS, strict=True)):
        weights = (random.normal(size=size) / np.prod(size[1:])).astype(np.float32)
        bias = random.normal(size=size[0]).astype(np.float32)
        if bits < 32:
            scale = np.abs(weights).max((1, 2, 3), keepdims=True) / (2 ** (bits - 1) - 1)
            more, makers = shrunk(f"w{place}", np.round(weights / scale).astype(np.int8), scale)
            tensors += more
            nodes += makers
        else:
            tensors.append(onnx.numpy_helper.from_array(weights, f"w{place}"))
        inputs = [f"x{place}", f"w{place}"]
        if biases:
            tensors.append(onnx.numpy_helper.from_array(bias, f"b{place}"))
            inputs.append(f"b{place}")
        nodes.append(onnx.helper.make_node("Conv", inputs, [f"y{place}"], group=groups))
        nodes.append(onnx.helper.make_node("Relu", [f"y{place}"], [f"x{place + 1}"]))
    nodes.append(onnx.helper.make_node("GlobalAveragePool", ["x3"], ["features"]))
    pixels = onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ("B", 32, 32, 3))
    features = onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ("B", 6, 1, 1))
    graph = onnx.helper.make_graph(nodes, "network", [pixels], [features], tensors)
    return finished(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))


def features(model: onnx.ModelProto) -> NDArray[np.float32]:
    """Of the sample photographs, (B, 6)."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.stack([PREPROCESS.pixels(load_image(path)) for path in SAMPLES.values()])
    found: NDArray[np.float32] = session.run(None, {"pixels": pixels})[0]
    return found.reshape(len(pixels), -1)


@pytest.mark.parametrize("biases", [True, False])
def test_features_come_nearer_to_the_exact_ones(biases: bool) -> None:
    exact = features(network(32, biases))
    rounded = np.abs(features(network(4, biases)) - exact).mean()
    corrected = np.abs(features(unbiased(network(4, biases), network(32, biases), PREPROCESS)) - exact).mean()
    assert 0.0 < corrected < rounded / 3


def test_layers_that_keep_their_weights_stay_as_they_are() -> None:
    exact = network(32)
    before = exact.SerializeToString()
    assert unbiased(network(32), exact, PREPROCESS).SerializeToString() == before
    assert exact.SerializeToString() == before
