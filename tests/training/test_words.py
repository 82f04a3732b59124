"""Which words are predicted, which classes of ImageNet they name, and how a head is fitted without being believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from captioner.network.header import find_checkpoint, read_header
from captioner.network.words import CLASSES
from captioner.training import words
from captioner.training.captions import CaptionTokens
from captioner.training.words import (
    FOLDS,
    Columns,
    cross_fitted,
    frequent_words,
    names_in,
    rates_of,
    strange_classes,
    word_loss,
)
from captioner.vocab import SPECIAL_TOKENS, Vocabulary

TEXTS = [("a dog", "a dog runs zebra"), ("a cat",), ("a dog",), ("a man zebra",)]
VOCABULARY = Vocabulary.build(["a dog runs", "cat man"])  # zebra is unknown


def test_frequent_words_are_those_that_tell_pictures_apart() -> None:
    captions = CaptionTokens.of([*TEXTS, ["runs runs man"]], VOCABULARY)
    found = frequent_words(captions, 4, VOCABULARY, 2)
    assert [VOCABULARY.words[token] for token in found] == ["dog", "cat"]  # "a" is everywhere; ties by the alphabet
    assert len(frequent_words(captions, 4, VOCABULARY, 100)) == 4
    assert frequent_words(captions, 4, VOCABULARY, 0).shape == (0,)


def test_a_token_may_have_two_columns() -> None:
    """It was learned, and is a name, too."""
    dog, cat, man = VOCABULARY.encode("dog cat man")
    columns = Columns(torch.tensor([dog, man, cat, dog]), len(VOCABULARY))
    assert columns.of(torch.tensor([dog, 1, 2])).tolist() == [True, False, False, True]
    assert columns.of(torch.tensor([cat, cat])).tolist() == [False, False, True, False]
    assert columns.of(torch.tensor([], dtype=torch.int64)).tolist() == [False] * 4
    captions = CaptionTokens.of([*TEXTS, ("a dog that is not there",)], VOCABULARY)
    expected = [[1, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 0]]
    assert columns.of_pictures(captions, 4).int().tolist() == expected
    assert Columns(torch.tensor([], dtype=torch.int64), 9).of_pictures(captions, 4).shape == (4, 0)


def test_the_table_of_names_is_sound() -> None:
    table = words._classes_by_name()
    assert len(table) > 200
    for name, classes in table.items():
        assert Vocabulary.build([name]).words[4:] == (name,), "no single lower-case token"
        assert classes
        assert len(set(classes)) == len(classes), f"{name}: a class counts twice"
        assert set(classes) <= set(range(CLASSES)), name
    file = (words.Path(words.__file__).parent / "imagenet_names.txt").read_text(encoding="utf-8")
    assert len(file.splitlines()) == len(table), "a name has two lines"
    # What torchvision and everybody else numbers so.
    known = {"dog": {151, 268}, "cat": {281, 285}, "zebra": {340}, "pizza": {963}, "umbrella": {879}, "wolf": {269}}
    assert all(classes <= set(table[name]) for name, classes in known.items())
    assert not set(table["dog"]) & set(table["cat"])


def test_names_in_the_shipped_vocabulary() -> None:
    vocabulary = read_header(find_checkpoint()).vocabulary
    tokens, links = names_in(vocabulary)
    table = words._classes_by_name()
    assert [vocabulary.words[token] for token in tokens] == [name for name in table if name in vocabulary.words]
    assert len(tokens) > 100
    found = {vocabulary.words[token]: links[0, links[1] == place].tolist() for place, token in enumerate(tokens)}
    assert found == {name: table[name] for name in found}
    assert links.is_contiguous()  # or it could not be stored


def test_a_vocabulary_without_names() -> None:
    tokens, links = names_in(Vocabulary.build(["一只狗"], tokens="character"))
    assert (tokens.shape, links.shape, links.dtype) == ((0,), (2, 0), torch.int64)


def test_classes_are_strange_when_hardly_any_picture_has_one_of_their_names() -> None:
    """Of 1,000 pictures, 500 have the first name, 5 the second, 4 the third, and none the fourth."""
    labels = torch.arange(1000)[:, None] < torch.tensor([500, 5, 4, 0])
    # Class 7 has a common name beside two rare ones, class 8 two rare ones; all others have no name.
    links = torch.tensor([[1, 2, 3, 4, 7, 7, 7, 8, 8], [0, 1, 2, 3, 3, 0, 2, 2, 3]])
    strange = strange_classes(links, labels)
    assert (strange.shape, strange.dtype) == ((CLASSES,), torch.float32)
    assert strange.nonzero().flatten().tolist() == [3, 4, 8]
    assert strange.max() == 1
    assert not strange_classes(links[:, :0], labels[:, :0]).any()


def test_the_word_loss_is_a_sum_over_words_and_pictures() -> None:
    head, features = nn.Linear(3, 4), torch.randn(5, 3)
    labels = torch.rand(5, 4) < 0.5
    p = torch.sigmoid(head(features))
    expected = -torch.where(labels, p, 1 - p).log().sum()
    assert word_loss(head, features, labels).item() == pytest.approx(expected.item(), rel=1e-5)


class TestCrossFitting:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(words, "_STEPS", 60)
        monkeypatch.setattr(words, "_BATCH", 64)
        monkeypatch.setattr(words, "_RATE", 0.02)
        torch.manual_seed(0)

    def test_no_head_saw_what_it_predicts(self) -> None:
        """Other labels of a fold's pictures change what is said of all others, and nothing of theirs."""
        features, labels = torch.randn(23, 2, 6), torch.rand(23, 3) < 0.5
        head, standard = nn.Linear(6, 3), (torch.zeros(6), torch.ones(6))
        before = cross_fitted(features, labels, head, *standard)
        weight = head.weight.clone()
        assert before.shape == (23, 2, 3)
        for number in range(FOLDS):
            mine = torch.arange(23) % FOLDS == number
            changed = torch.where(mine[:, None], ~labels, labels)
            after = cross_fitted(features, changed, head, *standard)
            same = (after == before).flatten(1).all(1)
            assert torch.equal(same, mine)
        assert not torch.equal(head.weight, weight)

    def test_random_labels_are_known_by_heart_and_predicted_no_better_than_by_chance(self) -> None:
        features, labels = torch.randn(60, 1, 200).expand(-1, 2, -1), torch.rand(60, 8) < 0.5
        head = nn.Linear(200, 8)
        found = cross_fitted(features, labels, head, torch.zeros(200), torch.ones(200))[:, 0]
        by_heart = torch.sigmoid(head(features[:, 0]))

        def gap(p: torch.Tensor) -> float:
            return (p[labels].mean() - p[~labels].mean()).item()

        assert gap(by_heart) > 0.5
        assert abs(gap(found)) < 0.1

    def test_the_head_that_stays_takes_features_as_they_are(self) -> None:
        shift, scale = torch.linspace(-50, 50, 6), torch.logspace(-2, 2, 6)
        features = torch.randn(300, 2, 6)
        features[:, 1] = features[:, 0]
        labels, head = features[:, 0, :3] > 0, nn.Linear(6, 3)
        raw = features * scale + shift
        found = cross_fitted(raw, labels, head, shift, scale)
        for p in (found[:, 0], torch.sigmoid(head(raw[:, 0]))):
            assert ((p > 0.5) == labels).float().mean() > 0.85

    @pytest.mark.parametrize("pictures", [1, 2, 4])
    def test_fewer_pictures_than_folds(self, pictures: int) -> None:
        features, labels = torch.randn(pictures, 2, 6), torch.rand(pictures, 3) < 0.5
        found = cross_fitted(features, labels, nn.Linear(6, 3), torch.zeros(6), torch.ones(6))
        assert ((found >= 0) & (found <= 1)).all()

    def test_it_is_the_same_each_time_and_leaves_the_global_generator_alone(self) -> None:
        features, labels = torch.randn(9, 2, 6), torch.rand(9, 3) < 0.5
        state = torch.get_rng_state()
        heads = [nn.Linear(6, 3), nn.Linear(6, 3)]
        torch.set_rng_state(state)
        with torch.no_grad():
            first, second = (cross_fitted(features, labels, head, torch.zeros(6), torch.ones(6)) for head in heads)
        assert torch.equal(first, second)
        assert torch.equal(heads[0].weight, heads[1].weight)
        assert torch.equal(torch.get_rng_state(), state)


def test_rates_are_the_shares_of_pictures_whose_captions_have_a_word() -> None:
    vocabulary = Vocabulary.build(["dog cat runs"])
    captions = CaptionTokens.of([["dog dog", "dog runs"], ["dog"], ["cat"], ["unknown"], ["cat"]], vocabulary)
    found = dict(zip(vocabulary.words, rates_of(captions, 4, vocabulary).tolist(), strict=True))
    assert found == {**dict.fromkeys(SPECIAL_TOKENS, 1.0), "dog": 0.5, "cat": 0.25, "runs": 0.25}


class Calls(TorchFunctionMode):
    """Counts what torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


def test_many_pictures_take_no_more_calls_than_few() -> None:
    """A call for each of COCO's pictures would take longer than the work itself."""
    columns, numbers = Columns(torch.tensor(VOCABULARY.encode("dog cat")), len(VOCABULARY)), []
    for times in (1, 50):
        captions = CaptionTokens.of(TEXTS * times, VOCABULARY)
        with Calls() as calls:
            labels, rates = columns.of_pictures(captions, 4 * times), rates_of(captions, 4 * times, VOCABULARY)
        numbers.append(calls.number)
        assert labels.sum(0).tolist() == [2 * times, times]
        assert rates[VOCABULARY.encode("dog")].item() == 0.5
    assert numbers[0] == numbers[1] > 0
