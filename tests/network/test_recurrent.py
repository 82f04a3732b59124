"""The recurrent family: every state and gradient equals that of the NumPy oracles, and what sets the cells apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracles import cells, network
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.network.model import Decoder, ModelConfig
from captioner.network.recurrent import PeepholeLSTM, RecurrentLayer, has_memory
from captioner.options import CELLS
from captioner.training.losses import caption_loss, real_targets
from captioner.vocab import END, PAD, START

FEATURE, HIDDEN, EMBEDDING, VOCABULARY = 3, 6, 5, 11
ORACLES: dict[str, cells.Cell] = {
    "lstm": cells.LSTM(),
    "gru": cells.GRU(),
    "rnn": cells.RNN(),
    "rnn-relu": cells.ReluRNN(),
    "peephole": cells.PeepholeLSTM(),
}
EXACT = {"rtol": 0, "atol": 1e-10}  # float64 on both sides: all that is left is rounding

every_cell = pytest.mark.parametrize("cell", CELLS)
one_and_two_layers = pytest.mark.parametrize("layers", [1, 2])


def make_decoder(cell: str = "lstm", layers: int = 1, seed: int = 0, dropout: float = 0.0, **more: Any) -> Decoder:
    """A small decoder in float64, whose weights, biases too, are all large enough to matter."""
    torch.manual_seed(seed)
    sizes = (VOCABULARY, HIDDEN, EMBEDDING)
    decoder = Decoder(ModelConfig("none", *sizes, dropout, cell, layers, **more), FEATURE).double()
    for weights in decoder.parameters():
        nn.init.normal_(weights, std=0.5)
    decoder.feature_mean.normal_()
    decoder.feature_std.uniform_(0.5, 2.0)
    return decoder


def make_captions() -> Tensor:
    """Captions of 1 to 7 words, padded, one word of them many times: (5, 9) int64"""
    generator = torch.Generator().manual_seed(1)
    captions = [torch.randint(4, VOCABULARY, (n,), generator=generator) for n in (7, 4, 1, 6)]
    captions.append(torch.full((5,), 7))
    rows = [torch.tensor([START, *caption.tolist(), END]) for caption in captions]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def make_features(rows: int = 5) -> Tensor:
    return torch.randn(rows, FEATURE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


# --- torch's weights under the names of the equations ---


def by_gates(w_x: Tensor, w_h: Tensor, b: Tensor, gates: str) -> cells.Weights:
    """Gates stacked in the rows of three arrays, each to its own name."""
    named = {}
    for gate, *parts in zip(gates, *(array.chunk(len(gates)) for array in (w_x, w_h, b)), strict=True):
        named |= {f"{name}{gate}": part.numpy() for name, part in zip(("W_x", "W_h", "b_"), parts, strict=True)}
    return named


def layer_weights(layer: RecurrentLayer, of: Callable[[Tensor], Tensor], gradients: bool) -> cells.Weights:
    """What `of` gives for the parameters of a layer: their values, or their gradients.

    torch has two biases for each gate, of which only the sum counts: so the gradient of each is that of the sum.
    """
    cell = layer.cell
    if isinstance(cell, PeepholeLSTM):
        named = by_gates(of(cell.inputs.weight), of(cell.hidden.weight), of(cell.inputs.bias), "ifco")
        return named | dict(zip(("p_i", "p_f", "p_o"), of(cell.peepholes).numpy(), strict=True))
    w_x, w_h, b_x, b_h = (of(parameter) for parameter in cell.parameters())
    b = b_x if gradients else b_x + b_h
    if isinstance(cell, nn.LSTM):
        return by_gates(w_x, w_h, b, "ifco")
    if isinstance(cell, nn.GRU):  # its n keeps two biases: the reset gate stands between them
        named = by_gates(w_x, w_h, b, "rzn")
        del named["b_n"]
        return named | {"b_xn": b_x.chunk(3)[2].numpy(), "b_hn": b_h.chunk(3)[2].numpy()}
    return {"W_x": w_x.numpy(), "W_h": w_h.numpy(), "b_h": b.numpy()}


def parts_of(decoder: Decoder, gradients: bool = False) -> dict[str, Any]:
    """The weights of a decoder, or their gradients, as the fields of an oracle's Network."""

    def of(parameter: Tensor) -> Tensor:
        if not gradients:
            return parameter.detach()
        assert parameter.grad is not None
        return parameter.grad

    def linear(layer: nn.Module, name: str) -> cells.Weights:
        weight, bias = layer.parameters()
        return {f"W_{name}": of(weight).numpy(), f"b_{name}": of(bias).numpy()}

    inject = [decoder.h0, decoder.c0] if has_memory(decoder.config.cell) else [decoder.h0]
    return {
        "layers": [layer_weights(layer, of, gradients) for layer in decoder.recurrent],
        "inject": [linear(layer, "v") for layer in inject],
        "embeddings": of(decoder.embedding.weight).numpy(),
        "output": linear(decoder.output, "y"),
    }


def oracle_of(decoder: Decoder) -> network.Network:
    """The same network in NumPy."""
    beside = decoder.h0.in_features - FEATURE  # words and manner, which are not standardised
    mean, std = np.append(decoder.feature_mean.numpy(), [0.0] * beside), np.append(decoder.feature_std, [1.0] * beside)
    standardisation = {"mean": mean, "std": std}
    how = {"s": decoder.config.hidden_scale, "linear_memory": decoder.config.linear_memory}
    return network.Network(ORACLES[decoder.config.cell], **parts_of(decoder), **standardisation, **how)


def named_arrays(value: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """All arrays in nested lists and dictionaries, each with the way to it."""
    if isinstance(value, np.ndarray):
        yield name, value
    else:
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from named_arrays(part, f"{name}/{key}")


def assert_same_gradients(decoder: Decoder, features: Tensor, expected: network.Gradients) -> None:
    fields = {name: getattr(expected, name) for name in ("layers", "inject", "embeddings", "output")}
    found, wanted = dict(named_arrays(parts_of(decoder, gradients=True))), dict(named_arrays(fields))
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], **EXACT, err_msg=name)
    assert features.grad is not None
    np.testing.assert_allclose(features.grad.numpy(), expected.features, **EXACT)
    two_biases = [
        (p.grad, layer.cell.get_parameter(name.replace("ih", "hh")).grad)
        for layer in decoder.recurrent
        for name, p in layer.cell.named_parameters()
        if name.startswith("bias_ih")
    ]
    for b_x, b_h in two_biases:
        shared = len(b_x) * 2 // 3 if decoder.config.cell == "gru" else len(b_x)
        torch.testing.assert_close(b_x[:shared], b_h[:shared], **EXACT)


# --- the oracle against torch ---


@pytest.mark.parametrize("more", [{}, {"hidden_scale": 3.0, "linear_memory": True}], ids=["textbook", "loud"])
@one_and_two_layers
@every_cell
def test_states_logits_loss_and_every_gradient_are_those_of_the_oracle(
    cell: str, layers: int, more: dict[str, Any]
) -> None:
    decoder, features, tokens = make_decoder(cell, layers, **more), make_features(), make_captions()
    features.requires_grad_()
    before = decoder.init_state(features)
    hidden, after = decoder.read(tokens[:, :-1], before)
    logits = decoder.logits(hidden)
    # caption_loss computes in float32, as the product does: the loss to 1e-6, and the gradients from float64 logits.
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD)
    assert caption_loss(decoder, features, tokens).item() / real_targets(tokens) == pytest.approx(loss.item(), rel=1e-6)
    loss.backward()

    done = network.forward(oracle_of(decoder), features.detach().numpy(), tokens.numpy())
    for found, expected in zip((*before, *after), (*done.states[0], *done.states[1]), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), expected, **EXACT)
    np.testing.assert_allclose(hidden.detach().numpy(), done.top, **EXACT)
    np.testing.assert_allclose(logits.detach().numpy(), done.logits, **EXACT)
    assert loss.item() == pytest.approx(done.loss, rel=1e-12)
    assert_same_gradients(decoder, features, network.backward(oracle_of(decoder), done))


@every_cell
def test_words_and_manner_enter_beside_a_feature_that_strangeness_dims(cell: str) -> None:
    decoder = make_decoder(cell, 2, words=3, names=2, links=4, word_inputs=True, manner=True)
    decoder.words.links.copy_(torch.tensor([[2, 5, 999, 5], [0, 0, 1, 1]]))
    decoder.words.strange[::2] = 1.0
    features, tokens = make_features(), make_captions()
    features.requires_grad_()
    loss = F.cross_entropy(decoder(features, tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD)
    loss.backward()

    roots, g = decoder.words(features).detach().sqrt(), decoder.words.strangeness(features)
    assert (roots.shape, g.shape) == ((5, 5), (5, 1))
    assert ((g > 0) & (g < 1)).all()
    oracle = oracle_of(decoder)
    # The oracle standardises: what it is given is such that (1 - g) v comes out of that.
    dimmed = decoder.feature_mean + (1 - g) * (features.detach() - decoder.feature_mean)
    done = network.forward(oracle, torch.cat([dimmed, roots, g], 1).numpy(), tokens.numpy())
    assert loss.item() == pytest.approx(done.loss, rel=1e-12)
    expected = network.backward(oracle, done)
    # Captions teach nothing to what predicts words.
    assert decoder.words.learned.weight.grad is None
    of_features = (1 - g).numpy() * expected.features[:, :FEATURE]
    assert_same_gradients(decoder, features, replace(expected, features=of_features))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 20])
@every_cell
def test_truncated_bptt_is_that_of_the_oracle(cell: str, k: int) -> None:
    """torch: the caption in stretches of k tokens, the state carried on and detached."""
    decoder, features, tokens = make_decoder(cell, layers=2), make_features(), make_captions()
    features.requires_grad_()
    state, total = decoder.init_state(features), torch.zeros(())
    for inputs, targets in zip(tokens[:, :-1].split(k, 1), tokens[:, 1:].split(k, 1), strict=True):
        hidden, state = decoder.read(inputs, state)
        state = tuple(part.detach() for part in state)
        total = total + F.cross_entropy(
            decoder.logits(hidden).flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="sum"
        )
    (total / real_targets(tokens)).backward()

    oracle = oracle_of(decoder)
    done = network.forward(oracle, features.detach().numpy(), tokens.numpy())
    cut, full = network.backward(oracle, done, k), network.backward(oracle, done)
    assert_same_gradients(decoder, features, cut)
    same = all(np.array_equal(a, b) for a, b in zip(cut.all(), full.all(), strict=True))
    assert same == (k >= tokens.shape[1] - 1)  # from there on nothing is cut


def test_the_state_carries_on_what_truncation_forgets() -> None:
    """Loss at the last step only: through the cut the first word still changes it, and learns nothing from it."""
    layer, w = cells.RNN(), {"W_x": np.eye(2), "W_h": np.eye(2), "b_h": np.zeros(2)}
    xs, start = np.full((1, 6, 2), 0.1), (np.zeros((1, 2)),)
    hs, _, memos = cells.run(layer, w, xs, start)
    other, _, _ = cells.run(layer, w, np.concatenate([xs[:, :1] + 1, xs[:, 1:]], 1), start)
    assert not np.allclose(hs[:, -1], other[:, -1])
    d_hs = np.zeros_like(hs)
    d_hs[:, -1] = 1
    for k, reached in ((3, [3, 4, 5]), (4, [4, 5]), (6, list(range(6)))):
        dxs, _, _ = cells.back_through_time(layer, w, memos, d_hs, (np.zeros((1, 2)),), k)
        assert np.flatnonzero(dxs.any((0, 2))).tolist() == reached


@pytest.mark.parametrize("tau", [0.01, 1.0, 1e6])
def test_clipping_is_that_of_torch(tau: float) -> None:
    decoder, tokens = make_decoder(), make_captions()
    caption_loss(decoder, make_features(), tokens).backward()
    before = [parameter.grad.numpy().copy() for parameter in decoder.parameters()]
    nn.utils.clip_grad_norm_(decoder.parameters(), tau)
    clipped = network.clip(before, tau)
    for found, expected in zip(decoder.parameters(), clipped, strict=True):
        np.testing.assert_allclose(found.grad.numpy(), expected, rtol=1e-4)  # torch divides by ||g|| + 1e-6
    norm, after = (np.sqrt(sum((g**2).sum() for g in group)) for group in (before, clipped))
    assert after == pytest.approx(min(norm, tau))


# --- the oracle against finite differences ---


def slope(loss: Callable[[], float], weights: np.ndarray, index: tuple[int, ...]) -> float:
    """dL/dw of one number, from the loss a little to the left and to the right of it."""
    old, step = weights[index], 1e-6
    losses = []
    for weights[index] in (old + step, old - step):
        losses.append(loss())
    weights[index] = old
    return (losses[0] - losses[1]) / (2 * step)


@every_cell
def test_the_oracle_s_gradients_are_slopes_of_its_loss(cell: str) -> None:
    oracle = oracle_of(make_decoder(cell, layers=2))
    features, tokens = make_features().numpy(), make_captions().numpy()
    gradients = network.backward(oracle, network.forward(oracle, features, tokens))
    for name in ("layers", "inject", "embeddings", "output"):
        wanted = dict(named_arrays(getattr(gradients, name)))
        for key, weights in named_arrays(getattr(oracle, name)):
            # Six of each array, to save time.
            for flat in range(0, weights.size, max(1, weights.size // 6)):
                index = np.unravel_index(flat, weights.shape)
                found = slope(lambda: network.forward(oracle, features, tokens).loss, weights, index)
                assert found == pytest.approx(wanted[key][index], abs=1e-8), (name, key, index)
    for index in np.ndindex(features.shape):
        found = slope(lambda: network.forward(oracle, features, tokens).loss, features, index)
        assert found == pytest.approx(gradients.features[index], abs=1e-8)


# --- the two forms of the GRU ---


def textbook(w: cells.Weights) -> cells.Weights:
    """The textbook's weights that come nearest to torch's: u = 1 - z, and one bias for b_xn and b_hn."""
    same = {name: value for name, value in w.items() if name[-1] == "r"}
    update = {f"{name}u": -w[f"{name}z"] for name in ("W_x", "W_h", "b_")}
    return same | update | {"W_xc": w["W_xn"], "W_hc": w["W_hn"], "b_c": w["b_xn"] + w["b_hn"]}


def gru_outputs(w: cells.Weights) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states of torch's form and of the textbook's on the same inputs."""
    rng = np.random.default_rng(0)
    xs, state = rng.normal(size=(4, 7, EMBEDDING)), (rng.normal(size=(4, HIDDEN)),)
    (of_torch, _, _), (of_textbook, _, _) = (
        cells.run(cells.GRU(), w, xs, state),
        cells.run(cells.TextbookGRU(), textbook(w), xs, state),
    )
    return of_torch, of_textbook


def test_torch_s_gru_is_not_the_textbook_s() -> None:
    (w,) = oracle_of(make_decoder("gru")).layers
    of_torch, of_textbook = gru_outputs(w)
    assert np.abs(of_torch - of_textbook).max() > 0.1


def test_the_two_grus_agree_where_nothing_is_reset() -> None:
    (w,) = oracle_of(make_decoder("gru")).layers
    nothing_reset = {"W_xr": 0 * w["W_xr"], "W_hr": 0 * w["W_hr"], "b_r": w["b_r"] + 50}  # r = 1
    np.testing.assert_allclose(*gru_outputs(w | nothing_reset), **EXACT)


def test_the_two_grus_agree_where_units_do_not_mix() -> None:
    """r * (W h) is W (r * h) if W is diagonal; and there must be no b_hn, which only torch's form resets."""
    (w,) = oracle_of(make_decoder("gru")).layers
    diagonal = {"W_hn": np.diag(np.diag(w["W_hn"])), "b_hn": 0 * w["b_hn"]}
    np.testing.assert_allclose(*gru_outputs(w | diagonal), **EXACT)


def test_the_textbook_gru_s_gradients_are_slopes() -> None:
    rng = np.random.default_rng(0)
    w = textbook(oracle_of(make_decoder("gru")).layers[0])
    xs, h, towards = (rng.normal(size=size) for size in ((2, 4, EMBEDDING), (2, HIDDEN), (2, 4, HIDDEN)))

    def loss() -> float:
        return float((cells.run(cells.TextbookGRU(), w, xs, (h,))[0] * towards).sum())

    memos = cells.run(cells.TextbookGRU(), w, xs, (h,))[2]
    dxs, (dh,), dw = cells.back_through_time(cells.TextbookGRU(), w, memos, towards, (np.zeros_like(h),))
    for name, array, gradient in (("x", xs, dxs), ("h", h, dh), *((name, w[name], dw[name]) for name in w)):
        for index in np.ndindex(array.shape):
            assert slope(loss, array, index) == pytest.approx(gradient[index], abs=1e-7), name


# --- layers ---


@one_and_two_layers
@every_cell
def test_teacher_forcing_equals_step_by_step(cell: str, layers: int) -> None:
    decoder, features, tokens = make_decoder(cell, layers).eval(), make_features(), make_captions()
    state, steps = decoder.init_state(features), []
    for column in tokens.T:
        logits, state = decoder.step(column, state)
        steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, 1), decoder(features, tokens), **EXACT)


@one_and_two_layers
@every_cell
def test_a_state_has_a_part_for_each_layer(cell: str, layers: int) -> None:
    decoder = make_decoder(cell, layers)
    first = decoder.init_state(make_features())
    _, after = decoder.step(torch.full((5,), START), first)
    for state in (first, after, decoder.zero_state(5)):
        assert isinstance(state, tuple)
        assert [part.shape for part in state] == [(layers, 5, HIDDEN)] * (2 if has_memory(cell) else 1)
    assert not any(part.any() for part in decoder.zero_state(5))
    if layers == 2:
        assert not torch.allclose(first[0][0], first[0][1])  # each layer has its own view of the picture


@every_cell
def test_layers_that_are_cut_off_do_nothing(cell: str) -> None:
    """Layer 2 reads layer 1: without weights from its input it writes the same whatever the words are."""
    decoder, tokens = make_decoder(cell, layers=2).eval(), make_captions()[:1]
    state = decoder.init_state(make_features(1))
    other = tokens.clone()
    other[:, 1] = 4 + (other[:, 1] - 3) % (VOCABULARY - 4)
    assert not torch.allclose(decoder.read(tokens, state)[0], decoder.read(other, state)[0])
    second = decoder.recurrent[1].cell
    nn.init.zeros_(second.inputs.weight if isinstance(second, PeepholeLSTM) else second.weight_ih_l0)
    torch.testing.assert_close(decoder.read(tokens, state)[0], decoder.read(other, state)[0], **EXACT)


def test_units_are_dropped_before_between_and_after_the_layers_anew_at_every_step() -> None:
    decoder = make_decoder("gru", layers=2, dropout=0.5).train()
    entering: list[Tensor] = []
    for layer in decoder.recurrent:
        layer.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    hidden, _ = decoder.read(torch.full((5, 8), 7), decoder.zero_state(5))
    assert len(entering) == 2
    for sequence in (*entering, hidden):  # embeddings, between the layers, before the output
        dropped = sequence == 0
        assert 0.3 < dropped.double().mean() < 0.7
        assert not bool((dropped == dropped[:, :1]).all())
        assert not bool((dropped == dropped[:1]).all())  # every caption has its own
    torch.testing.assert_close(entering[0][entering[0] != 0].abs().min(), 2 * decoder.embedding.weight[7].abs().min())


def test_a_relu_network_starts_from_the_identity() -> None:
    """Where nothing comes in the state stays: nothing vanishes and nothing explodes."""
    torch.manual_seed(0)
    layer = RecurrentLayer("rnn-relu", EMBEDDING, HIDDEN)
    weights = dict(layer.cell.named_parameters())
    assert torch.equal(weights["weight_hh_l0"], torch.eye(HIDDEN))
    state = torch.rand(1, 2, HIDDEN)
    with torch.no_grad():
        weights["weight_ih_l0"].zero_()
        _, (after,) = layer(torch.randn(2, 30, EMBEDDING), (state,))
    assert torch.equal(after, state)
    assert not torch.equal(RecurrentLayer("rnn", EMBEDDING, HIDDEN).cell.weight_hh_l0, torch.eye(HIDDEN))
