"""The encoder in 8 bits throughout."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import draw_picture

from captioner.errors import InputError
from captioner.network.encoder import as_batch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
from captioner.export.calibration import PICTURES, calibrated, read  # noqa: E402  # it needs onnx
from captioner.export.encoder import encoder_graph  # noqa: E402
from export.test_encoder import PREPROCESS, encoded, error, random_encoder, run  # noqa: E402


@pytest.mark.slow
def test_it_computes_with_bytes_and_nearly_the_same() -> None:
    encoder, pictures = random_encoder("resnet18"), [draw_picture(index) for index in range(24)]
    graph = calibrated(encoder_graph(encoder, "resnet18", PREPROCESS), read(pictures, PREPROCESS))
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    made_by = {name: node.op_type for node in graph.graph.node for name in node.output}
    sources = [[made_by.get(name, "") for name in node.input[:2]] for node in convolutions]
    assert len(sources) == 20
    assert sources[8:] == [["DequantizeLinear", "DequantizeLinear"]] * 12
    assert "DequantizeLinear" not in [weights for _, weights in sources[:8]], "the first ones are exact"
    pixels = as_batch(PREPROCESS.pixels(picture) for picture in pictures)
    assert 0.0 < error(run(graph, pixels), encoded(encoder, pixels)) < 0.3


def test_pictures_come_from_all_over_the_list() -> None:
    images = [draw_picture(0)] * 4 * PICTURES
    images[0], images[-2] = draw_picture(1), draw_picture(2)
    assert len(pictures := read(images, PREPROCESS)) == PICTURES
    assert pictures[0].shape == (1, 64, 64, 3)
    assert (pictures[0] != pictures[1]).any()
    assert len(read(images[: PICTURES + 1], PREPROCESS)) <= PICTURES


def test_what_cannot_be_read_is_left_out_and_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.jpg"
    assert len(read([missing, draw_picture(0)], PREPROCESS)) == 1
    with pytest.raises(InputError, match=r"none of the pictures can be read \(.*nowhere.jpg: no such file"):
        read([missing], PREPROCESS)
