"""Predicted words are what their definition says, the decoder reads them, and a checkpoint keeps them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_WORDS, draw_picture
from inference.decoders import decode
from torch import Tensor

from captioner.inference.rules import Rules
from captioner.inference.torch_engine import captioner_of
from captioner.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from captioner.network.config import ModelConfig
from captioner.network.model import Decoder
from captioner.network.words import CLASSES, WordPredictor
from captioner.options import CELLS, DecodeOptions
from captioner.training.losses import caption_loss
from captioner.vocab import END, START
from network.checkpoint_files import Content, Tensors, read_parts, refusal, with_words, write_parts

FEATURE = 7
LINKS = torch.tensor([[2, 5, 999, 5], [0, 0, 1, 1]])  # the first name is that of classes 2 and 5


def make_decoder(cell: str = "lstm", words: int = 3, names: int = 2, manner: bool = True) -> Decoder:
    torch.manual_seed(0)
    more = {"words": words, "names": names, "links": 4 if names else 0, "word_inputs": True, "manner": manner}
    decoder = Decoder(ModelConfig("none", 20, 16, 8, 0.0, cell, 1, **more), FEATURE).eval()
    for weights in decoder.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    if names:
        decoder.words.links.copy_(LINKS)
    return decoder


@pytest.fixture
def features() -> Tensor:
    return torch.randn(5, FEATURE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("words", "names"), [(3, 2), (3, 0), (0, 2)])
def test_the_probabilities_are_those_of_a_plain_computation(words: int, names: int, features: Tensor) -> None:
    predictor = make_decoder(words=words, names=names).words
    expected = torch.zeros(len(features), words + names)
    for row, v in enumerate(features):
        for word in range(words):
            logit = predictor.learned.bias[word] + (predictor.learned.weight[word] * v).sum()
            expected[row, word] = 1 / (1 + (-logit).exp())
        if names:
            exponents = [(predictor.classifier.weight[c] @ v + predictor.classifier.bias[c]).exp() for c in (2, 5, 999)]
            total = (predictor.classifier.weight @ v + predictor.classifier.bias).exp().sum()
            expected[row, words] = (exponents[0] + exponents[1]) / total
            expected[row, words + 1] = (exponents[2] + exponents[1]) / total
    torch.testing.assert_close(predictor(features), expected)


@pytest.mark.parametrize(("words", "names"), [(3, 2), (3, 0), (0, 2)])
def test_evidence_is_the_probability_of_a_word_or_its_rate_where_it_is_not_predicted(
    words: int, names: int, features: Tensor
) -> None:
    predictor = make_decoder(words=words, names=names).words
    tokens = [5, 9, 11][:words] + [9, 12][:names]  # one is learned and a name
    predictor.tokens.copy_(torch.tensor(tokens))
    predictor.rates.copy_(torch.rand(20))
    found = predictor(features)
    for row, picture in zip(predictor.evidence(predictor(features)), found, strict=True):
        for token in range(20):
            of_token = [float(picture[place]) for place in range(len(tokens)) if tokens[place] == token]
            expected = math.log((max(of_token or [float(predictor.rates[token])]) + 0.01) / 1.01)
            assert float(row[token]) == pytest.approx(expected, abs=1e-5)


def test_a_network_without_predicted_words_has_no_evidence(features: Tensor) -> None:
    assert Decoder(ModelConfig("none", 20, 16, 8, 0.0, "lstm", 1), FEATURE).words.evidence(torch.empty(3, 0)) is None


def test_a_decoder_without_words_has_no_predictor(features: Tensor) -> None:
    predictor = WordPredictor(ModelConfig("none", 20, 16, 8, 0.0, "lstm", 1), FEATURE)
    assert not predictor.state_dict()
    assert predictor(features).shape == (5, 0)


def test_a_name_of_all_classes_is_certain_and_no_more(features: Tensor) -> None:
    config = ModelConfig("none", 20, 16, 8, 0.0, "lstm", 1, names=1, links=CLASSES)
    predictor = WordPredictor(config, FEATURE)
    predictor.links[0] = torch.arange(CLASSES)
    found = predictor(features.repeat(40, 1) * torch.linspace(0.1, 30, 200)[:, None])
    assert found.max() <= 1.0  # although rounded numbers add up to more
    assert found.min() > 0.999


def test_the_classifier_of_imagenet_stays_as_it_came(features: Tensor) -> None:
    predictor = make_decoder().words
    assert {name for name, weights in predictor.named_parameters() if weights.requires_grad} == {
        "learned.weight",
        "learned.bias",
    }


def test_words_are_read_only_where_they_are_inputs(features: Tensor) -> None:
    decoder, other = make_decoder(), make_decoder()
    plain = Decoder(ModelConfig("none", 20, 16, 8, 0.0, "lstm", 1, words=3), FEATURE).eval()
    for network in (other, plain):
        before = network.init_state(features)
        with torch.no_grad():
            network.words.learned.bias += 5
        assert torch.equal(before[0], network.init_state(features)[0]) == (network is plain)
    # What is given takes the place of what is predicted.
    words, itself = decoder.words(features), decoder.init_state(features)[0]
    assert torch.equal(decoder.init_state(features, words)[0], itself)
    assert not torch.equal(decoder.init_state(features, words.flip(1))[0], itself)


class TestStrangeness:
    """Class 999 is strange. A classifier without weights gives it one probability for all pictures."""

    def decoder(self, probability: float, **options: Any) -> Decoder:
        decoder = make_decoder(**options)
        decoder.words.strange[999] = 1.0
        with torch.no_grad():
            decoder.words.classifier.weight.zero_()
            decoder.words.classifier.bias.zero_()[999] = math.log(999 * probability / (1 - probability))
        return decoder

    @pytest.mark.parametrize(("probability", "g"), [(0.1, 0.0), (0.2, 0.0), (0.5, 0.5), (0.65, 0.75), (0.9, 1.0)])
    def test_it_grows_with_the_probability_of_strange_classes(
        self, probability: float, g: float, features: Tensor
    ) -> None:
        found = self.decoder(probability).words.strangeness(features)
        torch.testing.assert_close(found, torch.full((5, 1), g), atol=1e-4, rtol=0)

    def test_all_strange_classes_count_together(self, features: Tensor) -> None:
        words = self.decoder(0.3).words
        words.strange.fill_(1.0)
        assert torch.equal(words.strangeness(features), torch.ones(5, 1))
        words.strange.zero_()
        assert not words.strangeness(features).any()

    def test_where_there_are_no_names_nothing_is_strange(self, features: Tensor) -> None:
        words = make_decoder(names=0).words
        assert not hasattr(words, "strange")
        assert torch.equal(words.strangeness(features), torch.zeros(5, 1))

    @pytest.mark.parametrize(("probability", "g"), [(0.1, 0.0), (0.5, 0.5), (0.9, 1.0)])
    @pytest.mark.parametrize("manner", [False, True])
    def test_it_dims_the_feature_and_is_the_manner(
        self, manner: bool, probability: float, g: float, features: Tensor
    ) -> None:
        decoder = self.decoder(probability, manner=manner)
        decoder.standardise(features)
        v = (features - decoder.feature_mean) / decoder.feature_std
        known = torch.cat([(1 - g) * v, decoder.words(features).sqrt(), torch.full((5, int(manner)), g)], 1)
        expected = torch.tanh(decoder.h0(known))
        torch.testing.assert_close(decoder.init_state(features)[0][0], expected, atol=1e-4, rtol=1e-4)

    def test_the_manner_that_is_given_wins_and_the_feature_stays_dimmed(self, features: Tensor) -> None:
        decoder = self.decoder(0.9)
        other = decoder.init_state(features, manner=torch.zeros(5, 1))[0]
        assert torch.equal(decoder.init_state(features, manner=torch.ones(5, 1))[0], decoder.init_state(features)[0])
        assert not torch.equal(other, decoder.init_state(features)[0])
        words = decoder.words(features)
        assert torch.equal(other, decoder.init_state(features * 0, words, torch.zeros(5, 1))[0])


@pytest.mark.parametrize("manner", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_teacher_forcing_equals_steps_and_batched_equals_single(cell: str, manner: bool, features: Tensor) -> None:
    decoder, tokens = make_decoder(cell, manner=manner), torch.randint(4, 20, (5, 6))
    forward = decoder(features, tokens)
    state, steps = decoder.init_state(features), []
    for column in tokens.T:
        logits, state = decoder.step(column, state)
        steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, 1), forward, rtol=1e-4, atol=1e-4)
    single = torch.cat([decoder(features[row : row + 1], tokens[row : row + 1]) for row in range(5)])
    torch.testing.assert_close(single, forward, rtol=1e-4, atol=1e-4)
    greedy = decode(decoder, features, Rules(DecodeOptions("greedy", max_length=8)))
    beam = decode(decoder, features, Rules(DecodeOptions("beam", max_length=8, beam_size=1)))
    assert [those[0].tokens for those in beam] == [those[0].tokens for those in greedy]


def test_words_that_are_certainly_not_there_have_gradients_that_are_numbers(features: Tensor) -> None:
    """The slope of a square root is infinite at 0."""
    decoder = make_decoder().train()
    with torch.no_grad():
        decoder.words.classifier.weight.zero_()
        decoder.words.classifier.bias.zero_()[0] = 1e4  # a class without a name
        decoder.words.learned.bias.fill_(-1e4)
    features.requires_grad_()
    assert not decoder.words(features).any()
    caption_loss(decoder, features, torch.tensor([[START, 7, 8, END]] * 5)).backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert all(torch.isfinite(weights.grad).all() for weights in decoder.parameters() if weights.grad is not None)


class TestCheckpoint:
    @pytest.fixture
    def file(self, tiny_checkpoint: Checkpoint, tmp_path: Path) -> Path:
        save_checkpoint(tmp_path / "words.safetensors", with_words(tiny_checkpoint))
        return tmp_path / "words.safetensors"

    def test_it_comes_back_and_is_saved_again_with_the_same_bytes(
        self, file: Path, tiny_checkpoint: Checkpoint, tmp_path: Path
    ) -> None:
        wanted, loaded = with_words(tiny_checkpoint).model, load_checkpoint(file)
        assert loaded.model.config == wanted.config
        words = loaded.model.decoder.words
        assert words.tokens.tolist() == [6, 7, 9, 9, 4]
        assert torch.equal(words.links, LINKS)
        assert words.strange.nonzero().tolist() == [[999]]
        assert not words.classifier.weight.requires_grad
        features = torch.randn(50, wanted.encoder.feature_size)
        with torch.inference_mode():
            torch.testing.assert_close(words(features), wanted.decoder.words(features), rtol=0, atol=0.1)
        save_checkpoint(tmp_path / "again", loaded)
        assert (tmp_path / "again").read_bytes() == file.read_bytes()

    def test_it_captions_a_batch_as_one_by_one(self, file: Path) -> None:
        captioner, pictures = captioner_of(load_checkpoint(file)), [draw_picture(i) for i in range(4)]
        together = [caption.text for caption in captioner.caption_batch(pictures)]
        assert together == [captioner.caption(picture).text for picture in pictures]
        assert set(" ".join(together).lower().split()) <= set(TINY_WORDS)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            *(
                (
                    lambda c, t, place=place, value=value: t["decoder.words.links"].__setitem__(place, value),
                    "damaged: decoder.words.links names a class or a word that does not exist",
                )
                for place, value in (((0, 1), -1), ((0, 3), CLASSES), ((1, 2), 2), ((1, 0), -1), ((1, 0), 2**40))
            ),
            *(
                (
                    lambda c, t, value=value: t["decoder.words.tokens"].__setitem__(4, value),
                    "damaged: decoder.words.tokens names a word that does not exist",
                )
                for value in (-1, 18)
            ),
            (lambda c, t: t.pop("decoder.words.tokens"), "the tensor 'decoder.words.tokens' is missing"),
            (
                lambda c, t: t["decoder.words.strange"].__setitem__(7, 0.5),
                "damaged: decoder.words.strange holds something else than 0 and 1",
            ),
            (lambda c, t: t.pop("decoder.words.strange"), "the tensor 'decoder.words.strange' is missing"),
            (lambda c, t: c["model"].update(names=0), "the tensor 'decoder.words.classifier.bias' does not belong"),
            (lambda c, t: c["model"].update(links=5), "decoder.words.links has shape (2, 4), not (2, 5)"),
            (lambda c, t: c["model"].update(words=2**21), "sizes can be 1048576 at most"),
            (lambda c, t: c["model"].update(manner=2), "manner must be bool, not 2"),
            (lambda c, t: c["model"].update(word_inputs=False), "manner needs word_inputs"),
            (lambda c, t: c["model"].update(manner=False), "decoder.h0.weight has shape"),
            (
                lambda c, t: t.update({"decoder.words.links": t["decoder.words.links"].to(torch.int8)}),
                "decoder.words.links holds I8 values",
            ),
            (lambda c, t: t.update({"decoder.words.links.scale": torch.ones(2, 1)}), "links.scale' does not belong"),
        ],
    )
    def test_damage_is_named(self, file: Path, change: Callable[[Content, Tensors], Any], message: str) -> None:
        content, tensors = read_parts(file)
        change(content, tensors)
        assert message in refusal(write_parts(file, content, tensors), load_checkpoint)
