"""The graph of the encoder, run by onnxruntime, computes what torch does."""

from __future__ import annotations

import pytest
import torch

from captioner.errors import CheckpointError
from captioner.network.encoder import Encoder, normalise
from captioner.network.preprocess import Preprocess

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
from captioner.export.encoder import encoder_graph, with_small_weights  # noqa: E402  # it needs onnx
from captioner.export.weights import quantised  # noqa: E402

PREPROCESS = Preprocess(size=64, mean=(0.3, 0.4, 0.5), std=(0.2, 0.25, 0.3))


def random_encoder(name: str) -> Encoder:
    """An encoder with random weights and statistics of BatchNorm."""
    torch.manual_seed(0)
    encoder = Encoder(name)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return encoder


def run(model: onnx.ModelProto, pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) -> (B, F)"""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [features] = session.run(["features"], {"pixels": pixels.permute(0, 2, 3, 1).contiguous().numpy()})
    return torch.from_numpy(features)


def random_pixels(batch: int, seed: int = 0) -> torch.Tensor:
    """(B, 3, S, S) uint8, smooth enough to look a little like pictures."""
    coarse = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 255
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear").to(torch.uint8)


def encoded(encoder: Encoder, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return encoder(normalise(PREPROCESS, pixels))


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The length of the difference, relative to that of the features without what all pictures share."""
    return float((found - wanted).norm() / (wanted - wanted.mean(0)).norm())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "efficientnet_lite0", "shufflenet_v2_x0_5"])
def test_features_are_those_of_torch_however_many_pictures_come(name: str) -> None:
    encoder = random_encoder(name)
    graph = encoder_graph(encoder, name, PREPROCESS)
    for batch in (1, 3):
        pixels = random_pixels(batch)
        found, wanted = run(graph, pixels), encoded(encoder, pixels)
        assert found.shape == (batch, encoder.feature_size)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return random_encoder("resnet18")  # unlike those of smaller networks, its random features tell pictures apart


@pytest.fixture(scope="module")
def graph(encoder: Encoder) -> onnx.ModelProto:
    return encoder_graph(encoder, "resnet18", PREPROCESS)


@pytest.mark.slow
class TestSmallWeights:
    @pytest.mark.parametrize(("bits", "most", "size"), [(16, 0.01, 0.51), (8, 0.15, 0.27)])
    def test_features_are_nearly_the_same_and_the_file_is_small(
        self, encoder: Encoder, graph: onnx.ModelProto, bits: int, most: float, size: float
    ) -> None:
        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        small, pixels = with_small_weights(copy, bits), random_pixels(8)
        assert 0.0 < error(run(small, pixels), encoded(encoder, pixels)) < most
        assert len(small.SerializeToString()) < size * len(graph.SerializeToString())

    def test_layers_of_few_weights_keep_half_precision(self, graph: onnx.ModelProto) -> None:
        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        small = with_small_weights(copy, 8)
        kept = {tensor.name: tensor for tensor in small.graph.initializer if tensor.name.endswith(".kept")}
        halves = [tensor for tensor in kept.values() if tensor.data_type == onnx.TensorProto.FLOAT16]
        bytes_ = [tensor for tensor in kept.values() if tensor.data_type == onnx.TensorProto.INT8]
        assert len(halves) + len(bytes_) == len(kept)
        numbers = [[onnx.numpy_helper.to_array(tensor).size for tensor in group] for group in (halves, bytes_)]
        assert max(numbers[0]) <= min(numbers[1])
        assert sum(numbers[0]) <= 0.03 * (sum(numbers[0]) + sum(numbers[1]))
        assert {tuple(tensor.dims)[1:] for tensor in halves} >= {(3, 7, 7)}

    def test_files_tell_nothing_of_the_machine_that_wrote_them(self, graph: onnx.ModelProto) -> None:
        parts = [graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output]
        assert not any(part.doc_string or part.metadata_props for part in parts)
        assert b"site-packages" not in graph.SerializeToString()
        assert graph.producer_name == "captioner"


def test_each_row_has_its_own_scale() -> None:
    weights = torch.tensor([[1.0, -127.0], [0.0, 0.0], [0.01, 0.006]]).numpy()
    for axis, turned in ((0, weights), (1, weights.T)):
        values, scale = quantised(turned, axis)
        assert scale.shape == ((3, 1) if axis == 0 else (1, 3))
        assert (values.T if axis else values).tolist() == [[1, -127], [0, 0], [127, 76]]
        torch.testing.assert_close(torch.from_numpy(values * scale), torch.from_numpy(turned), rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("matrix", ["Gemm", "turned Gemm", "MatMul"])
def test_linear_layers_are_rounded_by_output(matrix: str) -> None:
    """Outputs a thousand times as small as others keep their precision."""
    weights = torch.randn(16, 8) * torch.tensor([1.0, 1e-3] * 4)  # (inputs, outputs)
    stored, options = (weights.T, {"transB": 1}) if matrix == "turned Gemm" else (weights, {})
    node = onnx.helper.make_node(matrix.split()[-1], ["x", "w"], ["y"], **options)
    sides = [onnx.helper.make_tensor_value_info(*side) for side in (("x", 1, ("B", 16)), ("y", 1, ("B", 8)))]
    tensor = onnx.numpy_helper.from_array(stored.contiguous().numpy(), "w")
    graph = onnx.helper.make_graph([node], "linear", sides[:1], sides[1:], [tensor])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    x = torch.randn(5, 16)
    small = with_small_weights(model, 8)
    assert {tensor.data_type for tensor in small.graph.initializer} == {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT}
    session = onnxruntime.InferenceSession(small.SerializeToString(), providers=["CPUExecutionProvider"])
    found, wanted = torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), x @ weights
    assert ((found - wanted).norm(dim=0) / wanted.norm(dim=0)).max() < 0.03


def test_what_torch_cannot_export_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("a page of reasons")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(CheckpointError, match=r"torch .* cannot export the encoder shufflenet.*: install a newer"):
        encoder_graph(Encoder("shufflenet_v2_x0_5"), "shufflenet_v2_x0_5", PREPROCESS)
