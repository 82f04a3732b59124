"""The matcher: states and gradients of its two directions equal those of the NumPy oracle, whatever the padding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from oracles import bidirectional
from torch import Tensor, nn

from captioner.network.config import ModelConfig
from captioner.network.matcher import Matcher, SentenceEncoder, turned_round
from captioner.vocab import PAD
from network.test_recurrent import EXACT, layer_weights, named_arrays

SENTENCES = [[5, 9, 4, 7], [6], [10, 5, 5, 8, 4, 3, 9], [7, 7, 7]]
PADDED = nn.utils.rnn.pad_sequence([torch.tensor(s) for s in SENTENCES], batch_first=True, padding_value=PAD)
FEATURE = 4


def make_matcher() -> Matcher:
    """A small matcher in float64, whose weights, biases too, are all large enough to matter."""
    torch.manual_seed(0)
    matcher = Matcher(ModelConfig("none", 11, 6, 5, 0.0, "lstm", 1, match_size=3), FEATURE).double().eval()
    for weights in matcher.parameters():
        nn.init.normal_(weights, std=0.5)
    return matcher


def oracle_of(encoder: SentenceEncoder, gradients: bool = False) -> bidirectional.Reader:
    """The same network in NumPy, or its gradients."""

    def of(parameter: Tensor) -> Tensor:
        if not gradients:
            return parameter.detach()
        assert parameter.grad is not None
        return parameter.grad

    output = {"W_y": of(encoder.output.weight).numpy(), "b_y": of(encoder.output.bias).numpy()}
    directions = [layer_weights(layer, of, gradients) for layer in (encoder.forwards, encoder.backwards)]
    return bidirectional.Reader(of(encoder.embedding.weight).numpy(), directions, output)


def added(parts: list[bidirectional.Reader], of: Callable[[bidirectional.Reader], object]) -> dict[str, np.ndarray]:
    total: dict[str, np.ndarray] = {}
    for part in parts:
        for name, array in named_arrays(of(part)):
            total[name] = total.get(name, 0.0) + array
    return total


def test_a_padded_batch_is_read_as_the_oracle_reads_each_sentence() -> None:
    encoder = make_matcher().sentences
    with torch.no_grad():
        found = encoder(PADDED).numpy()
    net = oracle_of(encoder)
    wanted = np.stack([bidirectional.read(net, tokens)[0] for tokens in SENTENCES])
    np.testing.assert_allclose(found, wanted, **EXACT)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0)


def test_gradients_of_a_padded_batch_are_the_sums_of_the_oracles() -> None:
    encoder = make_matcher().sentences
    towards = torch.randn(len(SENTENCES), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (encoder(PADDED) * towards).sum().backward()
    net = oracle_of(encoder)
    wanted = [
        bidirectional.back(net, bidirectional.read(net, tokens)[1], d)
        for tokens, d in zip(SENTENCES, towards.numpy(), strict=True)
    ]
    found = dict(named_arrays(vars(oracle_of(encoder, gradients=True))))
    totals = added(wanted, vars)
    assert found.keys() == totals.keys()
    for name, total in totals.items():
        np.testing.assert_allclose(found[name], total, **EXACT, err_msg=name)
        assert np.abs(total).max() > 1e-3, name


def test_both_directions_and_the_order_of_words_matter() -> None:
    encoder = make_matcher().sentences
    with torch.no_grad():
        there, back = encoder(torch.tensor([[5, 9, 4], [4, 9, 5]]))
        assert not torch.allclose(there, back)
        for direction in (encoder.forwards, encoder.backwards):
            kept = {name: weights.clone() for name, weights in direction.state_dict().items()}
            for weights in direction.parameters():
                weights.zero_()
            assert not torch.allclose(encoder(torch.tensor([[5, 9, 4]]))[0], there)
            direction.load_state_dict(kept)


def test_turning_round_leaves_padding_where_it_is() -> None:
    turned = turned_round(torch.tensor([3, 1]), 4)
    assert turned.tolist() == [[2, 1, 0, 3], [0, 1, 2, 3]]
    assert turned.gather(1, turned).tolist() == [[0, 1, 2, 3]] * 2


def test_pictures_are_unit_vectors_of_a_linear_function_of_the_feature() -> None:
    matcher = make_matcher()
    features = torch.randn(2, FEATURE, dtype=torch.float64)
    with torch.no_grad():
        found = matcher.pictures(features)
        plain = features @ matcher.projection.weight.T + matcher.projection.bias
    torch.testing.assert_close(found, plain / plain.norm(dim=1, keepdim=True))
