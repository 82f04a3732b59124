"""What the decoder is told beside the feature: probabilities as the predictor's, and nothing of the caption itself."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from captioner.network.model import Decoder, ModelConfig
from captioner.training import words
from captioner.training.captions import CaptionTokens
from captioner.training.known import Known, StandIn, words_of_others
from captioner.training.ranks import Ranks
from captioner.training.words import Columns
from captioner.vocab import Vocabulary

PICTURES = 200
VOCABULARY = Vocabulary.build(["a dog cat man ball runs"])


@pytest.fixture
def found() -> Tensor:
    """Probabilities of 2 learned words and 4 names for pictures; no two are the same."""
    return torch.rand(PICTURES, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> Tensor:
    """Which pictures have them: the last word of each kind is in few pictures, or in none."""
    labels = torch.zeros(PICTURES, 6, dtype=torch.bool)
    for word, number in enumerate((80, 3, 40, 40, 5, 0)):
        labels[torch.randperm(PICTURES, generator=torch.Generator().manual_seed(word))[:number], word] = True
    return labels


def drawn(stand_in: StandIn, word: int, present: bool, number: int = 4000) -> Tensor:
    torch.manual_seed(1)
    wanted = torch.zeros(number, 6, dtype=torch.bool)
    wanted[:, word] = present
    return stand_in.draw(wanted)[:, word]


class TestStandIn:
    @pytest.mark.parametrize("present", [True, False])
    @pytest.mark.parametrize("word", [0, 2])
    def test_values_are_those_of_pictures_that_have_the_word_or_lack_it(
        self, found: Tensor, labels: Tensor, word: int, present: bool
    ) -> None:
        found[:, word] = found[:, word] * 0.5 + 0.5 * labels[:, word]  # the predictor can tell
        values, of_pictures = drawn(StandIn(found, labels, 4), word, present), found[labels[:, word] == present, word]
        assert torch.isin(values, of_pictures).all()
        for share in (0.1, 0.5, 0.9):
            assert values.quantile(share).item() == pytest.approx(of_pictures.quantile(share).item(), abs=0.03)

    def test_a_learned_word_of_few_pictures_is_drawn_from_all_learned_words(
        self, found: Tensor, labels: Tensor
    ) -> None:
        stand_in, pool = StandIn(found, labels, 4), found[:, :2][labels[:, :2]]
        values = drawn(stand_in, 1, True)
        assert torch.isin(values, pool).all()
        assert not torch.isin(values, found[labels[:, 1], 1]).all()
        assert values.mean().item() == pytest.approx(pool.mean().item(), abs=0.03)
        assert torch.isin(drawn(stand_in, 1, False), found[~labels[:, 1], 1]).all()

    @pytest.mark.parametrize("word", [4, 5])
    def test_a_name_of_few_pictures_is_drawn_from_the_names_that_the_classifier_recognises(
        self, found: Tensor, labels: Tensor, word: int
    ) -> None:
        found[:, 3] *= 0.1  # in many pictures, but never recognised
        values = drawn(StandIn(found, labels, 4), word, True)
        assert torch.isin(values, found[labels[:, 2], 2]).all()

    def test_where_none_is_recognised_all_count(self, found: Tensor, labels: Tensor) -> None:
        found *= 0.1
        values, pool = drawn(StandIn(found, labels, 4), 5, True), found[:, 2:][labels[:, 2:]]
        assert torch.isin(values, pool).all()
        assert not torch.isin(values, found[labels[:, 2], 2]).all()

    def test_where_no_picture_has_any_of_the_words_nothing_is_said(self, found: Tensor, labels: Tensor) -> None:
        values = StandIn(found, torch.zeros_like(labels), 4).draw(torch.ones(9, 6, dtype=torch.bool))
        assert not values.any()

    def test_words_of_a_caption_are_drawn_apart_and_follow_the_global_seed(self, found: Tensor, labels: Tensor) -> None:
        stand_in, wanted = StandIn(found, labels, 4), torch.ones(500, 6, dtype=torch.bool)
        torch.manual_seed(1)
        first, second = stand_in.draw(wanted), stand_in.draw(wanted)
        torch.manual_seed(1)
        assert torch.equal(stand_in.draw(wanted), first)
        assert not torch.equal(first, second)
        assert abs(torch.corrcoef(torch.stack([first[:, 0], first[:, 2]]))[0, 1]) < 0.2


def test_the_words_of_others_leave_out_what_the_caption_itself_says() -> None:
    dog, cat, man, ball = VOCABULARY.encode("dog cat man ball")
    captions = CaptionTokens.of(
        [("a dog", "a cat", "a dog with a man"), ("a ball runs",), ("a cat", "a man")], VOCABULARY
    )
    columns = Columns(torch.tensor([dog, cat, man, ball, dog]), len(VOCABULARY))
    found = words_of_others(captions, torch.arange(6), columns).int().tolist()
    assert found == [
        [1, 1, 1, 0, 1],
        [1, 0, 1, 0, 1],
        [1, 1, 0, 0, 1],
        [0, 0, 0, 1, 0],  # the only caption of its photograph
        [0, 0, 1, 0, 0],
        [0, 1, 0, 0, 0],
    ]


class TestKnown:
    """Two pictures with two captions each, then two photographs that are not there."""

    def material(self, manner: bool = True, **provenance: Any) -> Any:
        config = ModelConfig(
            "none", len(VOCABULARY), 8, 8, 0.0, "lstm", 1, words=1, names=1, links=2, word_inputs=True, manner=manner
        )
        torch.manual_seed(0)
        decoder = Decoder(config, 4)
        predictor = decoder.words
        dog, cat = VOCABULARY.encode("dog cat")
        predictor.tokens.copy_(torch.tensor([dog, cat]))
        texts = [("a dog", "a dog runs"), ("a cat", "a man"), ("a dog", "a cat"), ("a ball",)]
        captions = CaptionTokens.of(texts, VOCABULARY)
        return SimpleNamespace(
            model=SimpleNamespace(decoder=decoder, config=config),
            vocabulary=VOCABULARY,
            captions=captions,
            sources=torch.tensor([1, 1, 0, 1]),
            labels=Columns(predictor.tokens, len(VOCABULARY)).of_pictures(captions, 2),
            ranks=Ranks(),
            provenance=provenance,
            fitted=None,
            autocast=nullcontext,
        )

    def test_pictures_have_the_predictor_s_words_and_others_a_stand_in(self) -> None:
        found = torch.rand(2, 2, 2)
        known = Known(found, self.material(text={}))
        told = known.of_captions(torch.arange(7), torch.tensor([0, 1, 0, 1, 1, 0, 1]).bool())
        assert torch.equal(told["words"][:4], found[[0, 0, 1, 1], [0, 1, 0, 1]])
        # The others say "cat", "dog" and nothing that is predicted.
        dog, cat = found[0, 0, 0], found[1, 0, 1]
        assert told["words"][4:].tolist() == [
            [found[1, 0, 0], cat],
            [dog, found[0, 0, 1]],
            [found[1, 0, 0], found[0, 0, 1]],
        ]
        # The third photograph is of another source than the pictures.
        assert told["manner"].tolist() == [[0]] * 4 + [[1]] * 2 + [[0]]
        pictures = known.of_pictures(torch.tensor([1, 0]), torch.device("cpu"))
        assert torch.equal(pictures["words"], found[[1, 0], 0])
        assert pictures["manner"].tolist() == [[0]] * 2

    @pytest.mark.parametrize(("manner", "provenance"), [(False, {"text": {}}), (True, {"init": {}})])
    def test_a_manner_is_told_only_where_there_are_texts_of_several_sources(
        self, manner: bool, provenance: dict[str, Any]
    ) -> None:
        """A network from which training continues without texts chooses its manner itself."""
        known = Known(torch.rand(2, 2, 2), self.material(manner, **provenance))
        assert known.of_pictures(torch.tensor([0]), torch.device("cpu")).keys() == {"words"}
        assert known.of_captions(torch.tensor([0, 5]), torch.tensor([False, False])).keys() == {"words"}

    @pytest.mark.parametrize("init", [False, True])
    def test_only_a_new_predictor_is_fitted_and_names_stay(self, init: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(words, "_STEPS", 5)
        material = self.material(text={}, **({"init": {"reads_words": True}} if init else {}))
        predictor, features = material.model.decoder.words, torch.randn(2, 2, 4)
        before, predicted = predictor.learned.weight.detach().clone(), predictor(features.flatten(0, 1)).detach()
        known = Known.of(material, features)
        assert torch.equal(known._found.flatten(0, 1)[:, 1], predicted[:, 1])
        assert torch.equal(known._found.flatten(0, 1)[:, 0], predicted[:, 0]) == init
        assert torch.equal(predictor.learned.weight, before) == init

    @pytest.mark.parametrize("reads", [True, False])
    @pytest.mark.parametrize("changed", ["features", "mean"])
    def test_a_predictor_is_fitted_anew_when_an_earlier_checkpoint_has_rounded_what_it_was_fitted_to(
        self, reads: bool, changed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise a run that is resumed, which has to fit it, would go on with another one."""
        monkeypatch.setattr(words, "_STEPS", 5)
        before, gone_back = torch.randn(2, 2, 2, 4)
        fits = []
        for earlier in (True, False):
            material = self.material(manner=reads, text={})
            material.model.config = dataclasses.replace(material.model.config, word_inputs=reads)
            if earlier:
                Known.of(material, before)
            if changed == "mean":
                material.model.decoder.feature_mean += 0.5
            known = Known.of(material, gone_back if changed == "features" else before)
            fits.append([*material.model.decoder.words.learned.parameters(), *([known._found] if known else [])])
        assert all(map(torch.equal, *fits))

    @pytest.mark.parametrize("init", [{}, {"words": 0}, {"words": 1}])
    def test_a_predictor_that_the_decoder_does_not_read_is_fitted_unless_it_was_before(
        self, init: dict[str, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Decoding weighs words with it."""
        monkeypatch.setattr(words, "_STEPS", 5)
        material = self.material(manner=False, **({"init": init} if init else {}))
        material.model.config = dataclasses.replace(material.model.config, word_inputs=False)
        predictor, features = material.model.decoder.words, torch.randn(2, 2, 4)
        before = predictor.learned.weight.detach().clone()
        assert Known.of(material, features) is None
        assert torch.equal(predictor.learned.weight, before) == bool(init.get("words"))

    def test_a_feature_that_hardly_varies_does_not_get_weights_that_no_checkpoint_holds(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(words, "_STEPS", 50)
        material, features = self.material(text={}), torch.randn(2, 2, 4)
        features[..., 3] = 1 + 1e-7 * torch.arange(4.0).view(2, 2)
        decoder = material.model.decoder
        decoder.standardise(features.flatten(0, 1))
        Known.of(material, features)
        assert decoder.words.learned.weight.abs().max() < 1000
