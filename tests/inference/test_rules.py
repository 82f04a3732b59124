"""The rules of decoding: what is taken from options, vocabulary and prompt, and what they forbid."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from captioner.errors import OptionError
from captioner.inference.rules import Rules, log_softmax, top
from captioner.languages import ENGLISH
from captioner.options import DecodeOptions
from captioner.vocab import END, PAD, START, UNK, Vocabulary

# Small vocabularies soon repeat themselves, and most of these tests are about something else.
options_of = partial(DecodeOptions, no_repeat_ngram=0)

WORDS = Vocabulary.build(["a red jacket and a dog or cat"])
GREEDY = options_of("greedy", max_length=3)


def allowed(rules: Rules, text: str) -> set[str]:
    """The words that may follow a text."""
    written = np.array([WORDS.encode(text)], dtype=np.int64)
    scores = rules.scores(np.zeros((1, len(WORDS))), written)
    return {word for word, score in zip(WORDS.words, scores[0].tolist(), strict=True) if score > -math.inf}


def test_ids_come_from_the_vocabulary() -> None:
    rules = Rules.of(GREEDY, WORDS, "A dog,")
    assert rules.options is GREEDY
    assert WORDS.decode(rules.prompt) == ["a", "dog"]
    assert WORDS.decode(rules.conjunctions) == ["and", "or"]
    assert Rules.of(GREEDY, WORDS) == Rules(GREEDY, (), rules.conjunctions)
    assert Rules.of(GREEDY, Vocabulary.build(["一只狗"], tokens="character")) == Rules(GREEDY)


@pytest.mark.parametrize("conjunction", ["and", "or"])
def test_the_word_before_a_conjunction_is_forbidden_for_the_next_four(conjunction: str) -> None:
    every = {*WORDS.words[4:], "<end>"}
    rules, free = (Rules.of(options_of(allow_stutter=allow), WORDS) for allow in (False, True))
    for further in range(6):
        text = f"a red jacket {conjunction}" + " cat" * further
        assert allowed(rules, text) == (every - {"jacket"} if further < 4 else every)
        assert allowed(free, text) == every
    assert allowed(rules, f"{conjunction} dog") == every  # nothing stands before it


def test_the_number_of_rows_is_that_of_captions_or_of_the_beam() -> None:
    assert Rules(GREEDY).rows == 1
    assert Rules(options_of("sample", num_captions=7)).rows == 7
    assert Rules(options_of("beam", beam_size=5, num_captions=2)).rows == 5


@pytest.mark.parametrize("length", [3, 6])
def test_a_prompt_must_leave_room_for_a_word(length: int) -> None:
    assert Rules.of(GREEDY, WORDS, "a dog").prompt == (*WORDS.encode("a dog"),)
    message = f"the prompt is {length} words long .* max_length 3 .* at least {length + 1}"
    with pytest.raises(OptionError, match=message):
        Rules.of(GREEDY, WORDS, " ".join(["dog"] * length))


@pytest.mark.parametrize("token", [PAD, START, END, UNK])
def test_special_tokens_are_no_prompt(token: int) -> None:
    with pytest.raises(ValueError, match="a prompt cannot hold <pad>, <start>, <end> or <unk>"):
        Rules(GREEDY, (4, token))


@pytest.mark.parametrize(
    "knobs", [{}, {"top_k": 3}, {"top_p": 0.9}, {"temperature": 0.01}, {"temperature": 10.0}], ids=str
)
@pytest.mark.parametrize("uniform", [0.0, 0.5, math.nextafter(1.0, 0.0)])
def test_no_number_draws_a_banned_word(knobs: dict[str, Any], uniform: float) -> None:
    """Not even the ends of [0, 1), where the cumulative distribution is flat over the banned words."""
    rules = Rules(options_of("sample", **knobs))
    for size in (8, 5000):
        scores = log_softmax(np.random.default_rng(size).normal(size=(3, size)).astype(np.float32))
        scores[:, :4] = scores[:, -2:] = -np.inf
        chosen = rules.next_token(scores, np.full(3, uniform))
        assert np.isfinite(scores[range(3), chosen]).all()


_FUNCTION_WORDS = " ".join(sorted(ENGLISH.function_words))
PEOPLE = Vocabulary.build([f"man woman person boy girl child dog red hat {_FUNCTION_WORDS}"])


def test_neutral_words_for_people_have_the_probabilities_of_those_that_tell_the_sex() -> None:
    rules = Rules.of(DecodeOptions(people="neutral"), PEOPLE)
    logprobs = log_softmax(np.random.default_rng(0).normal(size=(5, len(PEOPLE))))
    merged, before, ids = np.exp(rules.merge(logprobs)), np.exp(logprobs), PEOPLE.ids
    for instead, gone in (("person", ("man", "woman")), ("child", ("boy", "girl")), ("their", ("his", "her"))):
        expected = before[:, ids[instead]] + sum(before[:, ids[word]] for word in gone)
        np.testing.assert_allclose(merged[:, ids[instead]], expected)
        assert not any(merged[:, ids[word]].any() for word in gone)
    np.testing.assert_allclose(merged.sum(1), np.ones(5))
    assert np.array_equal(merged[:, ids["dog"]], before[:, ids["dog"]])
    assert Rules.of(DecodeOptions(), PEOPLE).merge(logprobs) is logprobs


def test_of_several_neutral_words_the_likeliest_is_taken_in_each_place() -> None:
    characters = Vocabulary.build(["男女人孩小一个的在是有和两上下中前后边从向里外面只条名位群些"], tokens="character")
    rules, ids = Rules.of(DecodeOptions(people="neutral"), characters), characters.ids
    logprobs = np.full((2, len(characters)), -9.0)
    logprobs[0, ids["人"]] = logprobs[1, ids["孩"]] = -2.0
    logprobs[:, ids["男"]] = -0.5
    merged = rules.merge(logprobs)
    assert [merged[row].argmax() for row in range(2)] == [ids["人"], ids["孩"]]


def test_a_language_without_neutral_words_cannot_be_neutral() -> None:
    with pytest.raises(OptionError, match="no neutral words: leave people"):
        Rules.of(DecodeOptions(people="neutral"), Vocabulary.build(["un chien court"]))


@pytest.mark.parametrize(
    ("tokens", "avoid", "written", "forbidden"),
    [
        ("word", "dog, Hat,zebra", "a", {"dog", "hat"}),
        ("word", "dog，hat、red", "a", {"dog", "hat", "red"}),
        ("word", "red hat", "a red", {"hat"}),
        ("word", "red hat", "a", set()),
        ("character", "草地", "在草", {"地"}),
        ("character", "草地", "在", set()),
    ],
)
def test_avoided_words_are_not_written(tokens: str, avoid: str, written: str, forbidden: set[str]) -> None:
    vocabulary = PEOPLE if tokens == "word" else Vocabulary.build(["狗在草地上跑"], tokens="character")
    rules = Rules.of(DecodeOptions(avoid=avoid, no_repeat_ngram=0), vocabulary)
    scores = rules.scores(np.zeros((1, len(vocabulary))), np.array([vocabulary.encode(written)]))[0]
    found = {vocabulary.words[token] for token in np.isneginf(scores).nonzero()[0]}
    assert found - {"<pad>", "<start>", "<unk>"} == forbidden


def test_a_picture_speaks_less_for_a_word_that_was_said_unless_it_is_a_function_word() -> None:
    options = DecodeOptions(evidence=2.0)
    rules, ids = Rules.of(options, PEOPLE), PEOPLE.ids
    evidence = np.zeros((2, len(PEOPLE)))
    evidence[:, ids["hat"]] = -9.0
    written = np.array([PEOPLE.encode("a dog in"), PEOPLE.encode("a red hat")])
    logprobs = np.random.default_rng(0).normal(size=evidence.shape)
    left = rules.weigh(logprobs, evidence, written) - logprobs
    expected = evidence.copy()
    expected[0, ids["dog"]] = expected[1, ids["red"]] = 2 * math.log(0.1)
    np.testing.assert_allclose(left, expected)
    for unknown in (WORDS, Vocabulary.build(["狗在草地上跑"], tokens="character")):
        tokens = np.full((1, 2), 5)
        evidence = np.zeros((1, len(unknown)))
        found = Rules.of(options, unknown).weigh(np.ones((1, len(unknown))), evidence, tokens)
        assert np.array_equal(found, evidence + 1.0)


@pytest.mark.parametrize(
    ("options", "prompt", "message"),
    [
        ({"require": "man", "people": "neutral"}, "", "require: avoid .* or people neutral .* forbids 'man'"),
        ({"require": "dog,red", "avoid": "red"}, "", "forbids 'red': leave that out of one of them"),
        ({"require": "dog red hat", "max_length": 2}, "", "require: the words do not fit into max_length 2"),
        ({"require": "dog red", "max_length": 3}, "man hat", "require: the words do not fit into max_length 3"),
    ],
)
def test_required_words_that_cannot_be_written_are_refused(options: dict[str, Any], prompt: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Rules.of(DecodeOptions(**options), PEOPLE, prompt)
    assert Rules.of(DecodeOptions(require="dog red", max_length=3), PEOPLE, "dog hat").required


def test_required_words_are_known_and_few() -> None:
    assert Rules.of(DecodeOptions(require="red, Hat"), PEOPLE).required == tuple(PEOPLE.encode("red hat"))
    for words, message in (
        ("zebra", "require: the model does not know"),
        ("man,dog,red,hat", "require: 4 words are too many: give 3 at most"),
    ):
        with pytest.raises(OptionError, match=message):
            Rules.of(DecodeOptions(require=words), PEOPLE)


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1, 2**40 + 3])
def test_random_numbers_are_those_that_the_generator_of_torch_gives(seed: int) -> None:
    """So a seed draws the same captions as when decoding was torch's."""
    rules = Rules(options_of("sample", num_captions=3, max_length=5, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    assert np.array_equal(rules.uniforms(), torch.rand(3, 5, generator=generator, dtype=torch.float64).numpy())


def test_only_sampling_makes_a_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.random, "RandomState", lambda seed: pytest.fail("made a generator"))
    assert Rules(options_of("greedy", max_length=5)).uniforms().shape == (1, 5)


def test_log_softmax_is_that_of_torch() -> None:
    logits = np.random.default_rng(0).normal(scale=30, size=(5, 900)).astype(np.float32)
    logits[1, :7] = -np.inf
    np.testing.assert_allclose(log_softmax(logits), torch.from_numpy(logits).log_softmax(-1).numpy(), atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 30, 40])
def test_the_top_values_come_best_first(k: int) -> None:
    values = np.random.default_rng(k).permutation(np.arange(80.0)).reshape(2, 40)
    found, places = top(values, k)
    assert found.tolist() == (-np.sort(-values)[:, :k]).tolist()
    assert np.array_equal(np.take_along_axis(values, places, 1), found)


def test_of_equal_values_the_first_comes_first_and_no_place_comes_twice() -> None:
    found, places = top(np.array([[1.0, 2.0, 2.0, -np.inf], [-np.inf, -np.inf, 5.0, -np.inf]]), 3)
    assert places[0].tolist() == [1, 2, 0]
    assert found.tolist() == [[2.0, 2.0, 1.0], [5.0, -np.inf, -np.inf]]
