"""The graphs of the decoder, run by onnxruntime, compute what torch does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from captioner.inference.trust import feature_inputs
from captioner.network.checkpoint import rounded
from captioner.network.model import Decoder, ModelConfig
from captioner.options import CELLS

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from captioner.export.graphs import start_graph, step_graph  # noqa: E402  # it needs onnx

VOCABULARY, FEATURE, LINKS = 20, 16, 7
WORDS = {
    "no words": {},
    "words": {"words": 5},
    "words as inputs": {"words": 5, "word_inputs": True},
    "names as inputs": {"names": 4, "links": LINKS, "word_inputs": True},
    "words without names, and a manner": {"words": 5, "word_inputs": True, "manner": True},
    "all": {"words": 5, "names": 4, "links": LINKS, "word_inputs": True, "manner": True, "linear_memory": True},
}


def random_decoder(cell: str, layers: int, words: dict[str, int | bool]) -> Decoder:
    """A decoder with random weights and statistics; some classes are probable, and some of these strange."""
    torch.manual_seed(0)
    config = ModelConfig("shufflenet_v2_x0_5", VOCABULARY, 12, 8, 0.1, cell, layers, 3.0, **words)  # type: ignore[arg-type]
    decoder = Decoder(config, FEATURE).eval()
    predictor = decoder.words
    decoder.feature_mean.normal_()
    decoder.feature_std.uniform_(0.5, 2.0)
    if predictor.size:
        # With so few places, some tokens stand for two words.
        predictor.tokens.copy_(torch.randint(4, 8, (predictor.size,)))
        predictor.rates.uniform_()
    if predictor.names:
        predictor.links.copy_(torch.stack([torch.randperm(1000)[:LINKS], torch.arange(LINKS) % predictor.names]))
        predictor.strange.copy_(torch.rand(1000) < 0.4)
        predictor.classifier.weight.mul_(10.0)
        predictor.classifier.bias[predictor.links[0]] += 8.0
    return decoder


def run(model: onnx.ModelProto, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    names = [output.name for output in session.get_outputs()]
    return {name: torch.from_numpy(np.array(values)) for name, values in zip(names, found, strict=True)}


def started(decoder: Decoder, features: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `start` should give."""
    kind = torch.from_numpy(feature_inputs(decoder.standardised(features).numpy()))
    wanted = {**named(decoder.init_state(features)), "kind": kind}
    evidence = decoder.words.evidence(decoder.words(features))
    return wanted if evidence is None else {**wanted, "evidence": evidence, "words": decoder.words(features)}


def named(state: Sequence[torch.Tensor], after: str = "") -> dict[str, torch.Tensor]:
    return {name + after: part for name, part in zip("hc", state, strict=False)}


def assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], most: float = 1e-4) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(
            found[name], tensor, rtol=most, atol=most, msg=lambda why, name=name: f"{name}: {why}"
        )


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bits", [32, 8])
class TestDecoder:
    @pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
    def test_a_feature_becomes_the_state(self, cell: str, layers: int, bits: int, words: dict[str, int | bool]) -> None:
        decoder = random_decoder(cell, layers, words)
        if bits == 8:  # as it is after saving and loading
            decoder.load_state_dict(rounded(decoder))
        graph = start_graph(decoder, bits)
        for batch in (1, 3):
            features = torch.randn(batch, FEATURE)
            assert_equal(run(graph, features=features), started(decoder, features))

    def test_tokens_are_read_one_by_one(self, cell: str, layers: int, bits: int) -> None:
        decoder = random_decoder(cell, layers, {})
        if bits == 8:
            decoder.load_state_dict(rounded(decoder))
        graph = step_graph(decoder, bits)
        for rows in (1, 3):
            state = decoder.init_state(torch.randn(rows, FEATURE))
            for _ in range(2):
                tokens = torch.randint(0, VOCABULARY, (rows,))
                found = run(graph, tokens=tokens, **named(state))
                logits, state = decoder.step(tokens, state)
                assert_equal(found, {"logits": logits, **named(state, "_next")})


def test_the_random_decoders_are_not_trivial() -> None:
    """Names are probable and pictures are strange, each of them not always."""
    decoder = random_decoder("lstm", 1, WORDS["all"])
    features = torch.randn(50, decoder.feature_mean.numel())
    names, strangeness = decoder.words.of_names(features), decoder.words.strangeness(features)
    assert names.max() > 0.5
    assert names.min() < 0.1
    assert 0.2 < strangeness.mean() < 0.8


def test_with_half_precision_it_is_nearly_the_same() -> None:
    decoder = random_decoder("lstm", 2, WORDS["all"])
    features = torch.randn(3, FEATURE)
    found, wanted = run(start_graph(decoder, 16), features=features), started(decoder, features)
    assert_equal(found, wanted, 0.02)
    assert not torch.equal(found["h"], wanted["h"])


def test_weights_take_as_many_bits_as_they_should() -> None:
    decoder = random_decoder("lstm", 1, WORDS["all"])
    sizes = {bits: len(start_graph(decoder, bits).SerializeToString()) for bits in (32, 16, 8)}
    assert sizes[16] < 0.6 * sizes[32]
    assert sizes[8] < 0.45 * sizes[32]
