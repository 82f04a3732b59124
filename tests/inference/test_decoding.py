"""Decoding: what every strategy and every option promises, on decoders small enough to check by enumeration."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from captioner.inference import decoding
from captioner.inference.decoding import Hypothesis, _beam, _begin
from captioner.inference.rules import Floats, Ids, Rules
from captioner.inference.torch_engine import TorchSteps
from captioner.network.model import Decoder, ModelConfig
from captioner.options import DecodeOptions
from captioner.vocab import END, PAD, START, UNK
from inference.decoders import decode

# Small vocabularies soon repeat themselves, and most of these tests are about something else.
options_of = partial(DecodeOptions, no_repeat_ngram=0)

A, B, C, D = range(4, 8)  # the first words after the special tokens
FEATURE = 5

GREEDY = options_of("greedy", max_length=8)
SAMPLE = options_of("sample", max_length=8, num_captions=4)
BEAM = options_of("beam", max_length=8, num_captions=2)
STRATEGIES = [pytest.param(options, id=options.strategy) for options in (GREEDY, SAMPLE, BEAM)]
# Every strategy, every option away from its default at least once.
EVERY_WAY = [
    GREEDY,
    options_of("greedy", max_length=9, min_length=6, no_repeat_ngram=2),
    SAMPLE,
    options_of("sample", max_length=6, num_captions=3, temperature=0.6, top_k=3, seed=5),
    options_of("sample", max_length=9, min_length=4, temperature=1.7, top_p=0.7, no_repeat_ngram=1),
    BEAM,
    options_of("beam", max_length=7, beam_size=6, num_captions=6, length_penalty=0.0),
    options_of("beam", max_length=9, beam_size=4, min_length=5, no_repeat_ngram=1, length_penalty=2.0),
]


def beam(decoder: Any, features: Tensor, rules: Rules) -> list[list[Hypothesis]]:
    """The same by the search itself, to which `decode` does not hand a beam of 1."""
    steps = TorchSteps(decoder)
    with torch.inference_mode():
        state = decoder.init_state(features)
    return _beam(steps, _begin(steps, state, len(features), rules.prompt), rules, None)


class Table:
    """A decoder whose logits are read from a table: (V, V), of the next token after each token.

    A picture's feature, (V,), is added to them. Without randomness or matrix products its numbers are exact.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = self.feature_mean = logits  # of which the device is read

    def init_state(self, features: Tensor) -> Any:
        return (features.unsqueeze(0),)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.logits[tokens] + state[0][0], state

    def features(self, pictures: int) -> Tensor:
        return torch.zeros(pictures, self.logits.shape[1])


def table(probabilities: dict[int, dict[int, float]], size: int = 8) -> Table:
    """A table decoder from the probabilities of what follows each token; all else is next to impossible."""
    logits = torch.full((size, size), math.log(1e-12))
    for token, following in probabilities.items():
        for word, probability in following.items():
            logits[token, word] = math.log(probability)
    return Table(logits)


def uneven_table(seed: int, words: int = 4) -> Table:
    """A table decoder whose logits after each token are all different, by at least 1."""
    size = 4 + words
    generator = torch.Generator().manual_seed(seed)
    return Table(torch.stack([torch.randperm(size, generator=generator) for _ in range(size)]).float())


def network(seed: int, words: int = 6, end: float = 0.0, cell: str = "lstm", layers: int = 1) -> Decoder:
    """The real decoder with random weights, in double precision; `end` makes `<end>` likelier.

    Batches of different sizes are summed in a different order. In double precision the difference stays far below
    the precision of what decoding compares, so no near-tie between two words comes out differently.
    """
    config = ModelConfig("none", 4 + words, hidden_size=8, embedding_size=6, dropout=0.3, cell=cell, layers=layers)
    decoder = Decoder(config, FEATURE)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in decoder.named_parameters():
        torch.nn.init.normal_(weight, std=0.3 if "bias" in name else 1.0, generator=generator)
    decoder.output.bias.data[END] = end
    return decoder.double().eval()


def pictures(number: int, seed: int = 0) -> Tensor:
    """Features of a network's pictures, (number, F)"""
    return torch.randn(number, FEATURE, generator=torch.Generator().manual_seed(seed)).double() * 2


def words_of(hypothesis: Hypothesis) -> tuple[int, ...]:
    return tuple(token for token in hypothesis.tokens if token != END)


def tokens_of(captions: list[list[Hypothesis]]) -> list[list[tuple[int, ...]]]:
    return [[hypothesis.tokens for hypothesis in picture] for picture in captions]


def repeats(words: tuple[int, ...], n: int) -> bool:
    """Whether some n words occur twice in a row of words."""
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(grams)) < len(grams)


def forced(decoder: Decoder, feature: Tensor, tokens: tuple[int, ...]) -> list[float]:
    """The log-probability of each token of a caption of one picture, (F,), by teacher forcing."""
    with torch.inference_mode():
        logits = decoder(feature.unsqueeze(0), torch.tensor([[START, *tokens[:-1]]]))[0]
    values: list[float] = logits.log_softmax(-1)[range(len(tokens)), tokens].tolist()
    return values


def every_caption(decoder: Any, feature: Tensor, max_length: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """All captions that can be written for one picture, (1, F), with their log-probabilities."""

    def extend(prefix: tuple[int, ...], logprob: float, state: Any) -> Iterator[tuple[tuple[int, ...], float]]:
        logits, state = decoder.step(torch.tensor([prefix[-1] if prefix else START]), state)
        logprobs = logits[0].double().log_softmax(-1).tolist()
        for token in (END, *range(4, len(logprobs))):
            longer, total = (*prefix, token), logprob + logprobs[token]
            if token == END or len(longer) == max_length:
                yield longer, total
            else:
                yield from extend(longer, total, state)

    with torch.inference_mode():
        yield from extend((), 0.0, decoder.init_state(feature))


# Greedy, and where a caption ends


def test_greedy_takes_the_likeliest_word_and_stops_at_end() -> None:
    decoder = table({START: {A: 0.6, B: 0.4}, A: {B: 0.7, END: 0.3}, B: {END: 0.8, B: 0.2}})
    [[caption]] = decode(decoder, decoder.features(1), Rules(GREEDY))
    assert caption.tokens == (A, B, END)
    assert caption.finished
    assert caption.token_logprobs == pytest.approx([math.log(0.6), math.log(0.7), math.log(0.8)], abs=1e-6)


@pytest.mark.parametrize("options", STRATEGIES)
@pytest.mark.parametrize("max_length", [1, 2, 5])
def test_a_caption_that_never_ends_is_cut_off_at_the_length_limit(options: DecodeOptions, max_length: int) -> None:
    decoder = table({word: {A: 1.0, END: 1e-15} for word in (START, A, B, C, D)})
    rules = Rules(options_of(options.strategy, max_length=max_length))
    for caption in decode(decoder, decoder.features(1), rules)[0]:
        assert caption.tokens == (A,) * max_length
        assert not caption.finished


@pytest.mark.parametrize("options", STRATEGIES)
def test_an_end_at_the_length_limit_counts(options: DecodeOptions) -> None:
    decoder = table({START: {A: 1.0}, A: {END: 1.0}})
    [[caption]] = decode(decoder, decoder.features(1), Rules(options_of(options.strategy, max_length=2)))
    assert caption.tokens == (A, END)
    assert caption.finished


@pytest.mark.parametrize("options", EVERY_WAY)
def test_a_caption_ends_at_its_first_end_or_at_the_limit(options: DecodeOptions) -> None:
    captions = [caption for picture in decode(network(1), pictures(20), Rules(options)) for caption in picture]
    for caption in captions:
        assert caption.finished == (END in caption.tokens)
        assert END not in caption.tokens[:-1]
        assert caption.finished or len(caption.tokens) == options.max_length
        assert options.min_length <= len(words_of(caption)) <= options.max_length
        assert len(caption.token_logprobs) == len(caption.tokens)
    assert any(caption.finished for caption in captions)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("min_length", [0, 5])
def test_greedy_takes_the_likeliest_word_that_the_rules_allow(n: int, min_length: int) -> None:
    changed = 0
    for seed in range(20):
        decoder = uneven_table(seed, words=7)
        written: tuple[int, ...] = ()
        while len(written) < 10 and END not in written:
            logits = decoder.logits[written[-1] if written else START].tolist()
            words = [word for word in range(4, len(logits)) if not n or not repeats((*written, word), n)]
            allowed = words + [END] * (len(written) >= min_length)
            written = (*written, max(allowed, key=lambda word: logits[word]))
        options = options_of("greedy", max_length=10, min_length=min_length, no_repeat_ngram=n)
        [[caption]] = decode(decoder, decoder.features(1), Rules(options))
        [[free]] = decode(decoder, decoder.features(1), Rules(options_of("greedy", max_length=10)))
        assert caption.tokens == written
        changed += caption.tokens != free.tokens
    assert bool(changed) == bool(n or min_length)


def stutters(tokens: tuple[int, ...], conjunction: int) -> bool:
    """Whether the word before a conjunction is one of the four after it."""
    return any(
        tokens[place - 1] in tokens[place + 1 : place + 5]
        for place in range(1, len(tokens))
        if tokens[place] == conjunction
    )


@pytest.mark.parametrize(
    "options",
    [options_of("greedy"), options_of("sample", num_captions=9), options_of("beam", num_captions=3)],
    ids=lambda options: options.strategy,
)
def test_no_caption_stutters_unless_it_may(options: DecodeOptions) -> None:
    conjunction, stuttering = 4, {True: 0, False: 0}
    for allow in stuttering:
        rules = Rules(replace(options, allow_stutter=allow), conjunctions=(conjunction,))
        for seed in range(20):
            decoder = uneven_table(seed, words=7)
            for group in decode(decoder, decoder.features(3), rules):
                stuttering[allow] += sum(stutters(caption.tokens, conjunction) for caption in group)
            if allow:  # then nothing is forbidden that would not be without conjunctions
                free = decode(decoder, decoder.features(3), Rules(options))
                assert decode(decoder, decoder.features(3), rules) == free
    assert stuttering[True]
    assert not stuttering[False]


# Beam search


@pytest.mark.parametrize(
    "rules", [{}, {"min_length": 4}, {"no_repeat_ngram": 1}, {"no_repeat_ngram": 2, "min_length": 3}, {"max_length": 3}]
)
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_beam_of_one_is_greedy(rules: dict[str, int], length_penalty: float) -> None:
    one = options_of("beam", beam_size=1, length_penalty=length_penalty, **rules)
    for seed in range(5):
        decoder, features = network(seed), pictures(12, seed)
        greedy = decode(decoder, features, Rules(options_of("greedy", **rules)))
        assert decode(decoder, features, Rules(one)) == greedy
        # decode() hands a beam of 1 to greedy decoding; the search itself must come to the same.
        assert tokens_of(beam(decoder, features, Rules(one))) == tokens_of(greedy)


@pytest.mark.parametrize("options", [options_of("beam", beam_size=1), options_of("sample", top_k=1)])
def test_ties_go_to_the_same_word_as_in_greedy_decoding(options: DecodeOptions) -> None:
    decoder = Table(torch.randint(0, 2, (60, 60), generator=torch.Generator().manual_seed(0)).float())
    assert decode(decoder, decoder.features(1), Rules(options)) == decode(
        decoder, decoder.features(1), Rules(options_of("greedy"))
    )


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("end", [-math.inf, -1.0, 2.0], ids=["never ends", "long", "short"])
@pytest.mark.parametrize(("words", "max_length"), [(1, 5), (3, 3), (2, 5)])
def test_a_beam_that_prunes_nothing_equals_brute_force(
    words: int, max_length: int, end: float, length_penalty: float
) -> None:
    decoder, features = network(words, words=words, end=end), pictures(4)
    options = options_of("beam", beam_size=100, num_captions=100, max_length=max_length, length_penalty=length_penalty)
    for picture, captions in enumerate(decode(decoder, features, Rules(options))):
        possible = [c for c in every_caption(decoder, features[picture : picture + 1], max_length) if c[1] > -math.inf]
        # Finished ones come first; among them, and among the others, the score decides.
        possible.sort(key=lambda c: (c[0][-1] != END, -c[1] / len(c[0]) ** length_penalty))
        assert [caption.tokens for caption in captions] == [tokens for tokens, _ in possible]
        assert [caption.logprob for caption in captions] == pytest.approx([p for _, p in possible], abs=1e-4)


def plain_beam(decoder: Any, feature: Tensor, options: DecodeOptions, prompt: tuple[int, ...]) -> list[tuple[int, ...]]:
    """A beam search of one picture, (1, F), written without regard to speed: it always goes on to the length limit."""
    logits, state = decoder.step(torch.tensor([START]), decoder.init_state(feature))
    for token in prompt:
        logits, state = decoder.step(torch.tensor([token]), state)
    beam, finished = [(prompt, 0.0, logits, state)], []
    while beam and len(beam[0][0]) < options.max_length:
        longer = [
            ((*written, token), total + logprob, state)
            for written, total, logits, state in beam
            for token, logprob in enumerate(logits[0].log_softmax(-1).tolist())
            if token not in (PAD, START, UNK)
        ]
        beam = []
        for written, total, state in sorted(longer, key=lambda candidate: -candidate[1])[: options.beam_size]:
            if written[-1] == END:
                finished.append((written, total / (len(written) - len(prompt)) ** options.length_penalty))
            else:
                beam.append((written, total, *decoder.step(torch.tensor([written[-1]]), state)))
    finished.sort(key=lambda candidate: -candidate[1])
    found = [candidate[0] for candidate in finished[: options.beam_size] + beam]
    return found[: options.num_captions]


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("prompt", [(), (A, B)], ids=str)
@pytest.mark.parametrize("beam_size", [2, 4])
@torch.inference_mode()
def test_a_beam_finds_what_a_plain_one_finds(beam_size: int, prompt: tuple[int, ...], length_penalty: float) -> None:
    options = options_of(beam_size=beam_size, num_captions=beam_size, max_length=9, length_penalty=length_penalty)
    lengths = set()
    for end in (-1.0, 0.5, 2.0):
        decoder, features = network(7, words=5, end=end), pictures(12)
        expected = [plain_beam(decoder, feature, options, prompt) for feature in features.split(1)]
        assert tokens_of(decode(decoder, features, Rules(options, prompt))) == expected
        lengths |= {len(tokens) for captions in expected for tokens in captions}
    assert len(lengths) > 4


@pytest.mark.parametrize("number", [1, 2, 5])
def test_fewer_captions_of_a_beam_are_its_best(number: int) -> None:
    decoder, features = network(3), pictures(5)
    every = decode(decoder, features, Rules(options_of(beam_size=8, num_captions=8)))
    assert decode(decoder, features, Rules(options_of(beam_size=8, num_captions=number))) == [c[:number] for c in every]


def test_a_wider_beam_finds_what_greedy_misses() -> None:
    decoder = table({START: {A: 0.6, B: 0.4}, A: {C: 0.5, D: 0.5}, B: {END: 1.0}, C: {END: 1.0}, D: {END: 1.0}})
    found = [decode(decoder, decoder.features(1), Rules(options_of(beam_size=k, length_penalty=0.0))) for k in (1, 2)]
    assert tokens_of(found[0]) == [[(A, C, END)]]
    assert tokens_of(found[1]) == [[(B, END)]]
    assert found[1][0][0].logprob > found[0][0][0].logprob


def test_a_finished_caption_is_not_lost_to_longer_ones() -> None:
    """The short one ends in the first steps of a search that goes on to the limit with more likely beginnings."""
    decoder = table({START: {A: 0.9, END: 0.1}, A: {A: 0.99, B: 0.01}, B: {B: 1.0}})
    [[caption]] = decode(decoder, decoder.features(1), Rules(options_of(beam_size=2, max_length=10)))
    assert caption.tokens == (END,)


def test_a_larger_length_penalty_gives_longer_captions() -> None:
    # Among all captions, which a beam of 100 holds here, the best under a larger exponent is never shorter.
    decoder, features = network(5, words=2, end=1.0), pictures(40)
    lengths = []
    for penalty in (0.0, 0.5, 1.0, 2.0, 3.0):
        options = options_of(beam_size=100, max_length=5, length_penalty=penalty)
        lengths.append([len(caption.tokens) for [caption] in decode(decoder, features, Rules(options))])
    assert all(a <= b for shorter, longer in itertools.pairwise(lengths) for a, b in zip(shorter, longer, strict=True))
    assert sum(lengths[0]) < sum(lengths[2]) < sum(lengths[4])


@pytest.mark.parametrize("prompt", [(), (A, B)], ids=str)
def test_who_watches_a_beam_can_follow_every_hypothesis(prompt: tuple[int, ...]) -> None:
    """Place by place, token by token; the numbers are those of teacher forcing without the prompt's."""
    decoder, features = network(1, words=9), pictures(1)
    rows, steps = [prompt] * 4, 0
    seen: set[tuple[int, ...]] = set()

    def watch(parents: Ids, tokens: Ids, sums: Floats) -> None:
        nonlocal rows, steps
        assert parents.shape == tokens.shape == sums.shape == (1, 4)
        assert sums.tolist() == (-np.sort(-sums)).tolist()
        told = zip(parents[0].tolist(), tokens[0].tolist(), sums[0].tolist(), strict=True)
        rows, before = [], rows
        for parent, token, total in told:
            rows.append((*before[parent], token))
            if total > -math.inf:
                assert total == pytest.approx(sum(forced(decoder, features[0], rows[-1])[len(prompt) :]), abs=1e-5)
        steps += 1
        seen.update(rows)

    options = options_of(beam_size=4, num_captions=4, max_length=8)
    [captions] = decode(decoder, features, Rules(options, prompt), watch)
    assert {caption.tokens for caption in captions} <= seen
    assert 1 < steps <= 8


@pytest.mark.parametrize("options", EVERY_WAY)
def test_captions_that_have_ended_cost_nothing(options: DecodeOptions) -> None:
    """What is asked of the decoder at each step is no more than what still goes on."""
    decoder, features, rows = network(1, words=9, end=2.0), pictures(20), []

    class Counting:
        init_state, feature_mean = staticmethod(decoder.init_state), decoder.feature_mean

        @staticmethod
        def step(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
            rows.append(len(tokens))
            return decoder.step(tokens, state)

    captions = decode(Counting(), features, Rules(options))
    each = options.beam_size if options.strategy == "beam" else options.num_captions
    assert captions == decode(decoder, features, Rules(options))
    assert rows[1:] == sorted(rows[1:], reverse=True)
    if options.strategy != "beam":
        lengths = [len(caption.tokens) for picture in captions for caption in picture]
        assert rows[1:] == [sum(length > t for length in lengths) for t in range(1, max(lengths))]
    elif not options.min_length:
        assert rows[-1] < 20 * each


# Sampling


def softmax(logits: list[float], temperature: float, top_k: int, top_p: float) -> dict[int, float]:
    """What sampling promises, in the plainest terms: the probability of each token that may be drawn."""
    allowed = [token for token in range(len(logits)) if token not in (PAD, START, UNK)]
    allowed.sort(key=lambda token: -logits[token])
    allowed = allowed[: top_k or None]
    weights = [math.exp(logits[token] / temperature) for token in allowed]
    kept, mass = {}, 0.0
    for token, weight in zip(allowed, weights, strict=True):
        if mass < top_p:
            kept[token] = weight / sum(weights)
        mass += weight / sum(weights)
    return {token: probability / sum(kept.values()) for token, probability in kept.items()}


def chi_square_limit(freedom: int) -> float:
    """The value that chi-square exceeds once in 10,000 times (Wilson and Hilferty 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + 3.719 * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_p": 0.8},
        {"top_k": 4, "top_p": 0.7, "temperature": 1.5},
    ],
    ids=str,
)
def test_draws_fit_the_softmax(knobs: dict[str, Any]) -> None:
    """Whole captions of up to two words, so that a step's draws must also be independent of the last step's."""
    draws = 20_000
    decoder = Table(torch.randn(9, 9, generator=torch.Generator().manual_seed(3)))
    options = options_of("sample", num_captions=draws, max_length=2, **knobs)
    [captions] = decode(decoder, decoder.features(1), Rules(options))
    counts = Counter(caption.tokens for caption in captions)

    shape = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **knobs}
    expected: dict[tuple[int, ...], float] = {}
    for first, p in softmax(decoder.logits[START].tolist(), **shape).items():
        if first == END:
            expected[(END,)] = p * draws
        else:
            following = softmax(decoder.logits[first].tolist(), **shape)
            expected |= {(first, second): p * q * draws for second, q in following.items()}

    assert len(captions) == draws
    assert set(counts) <= set(expected)
    # Chi-square asks for at least 5 expected in a cell: the rarest go together.
    cells = [(counts[tokens], number) for tokens, number in expected.items() if number >= 5]
    rare = [(counts[tokens], number) for tokens, number in expected.items() if number < 5]
    if sum(number for _, number in rare) >= 5:
        cells.append((sum(count for count, _ in rare), sum(number for _, number in rare)))
    assert sum((count - number) ** 2 / number for count, number in cells) < chi_square_limit(len(cells) - 1)


@pytest.mark.parametrize("knob", [{"top_k": 1}, {"temperature": 0.01}, {"top_p": 0.01}], ids=str)
def test_sampling_that_leaves_no_choice_is_greedy(knob: dict[str, Any]) -> None:
    for seed in range(10):
        decoder = uneven_table(seed)  # of two nearly equal words, a low temperature still draws both
        [captions] = decode(decoder, decoder.features(1), Rules(options_of("sample", num_captions=5, **knob)))
        assert captions == decode(decoder, decoder.features(1), Rules(options_of("greedy")))[0] * 5


def entropy(captions: list[Hypothesis]) -> float:
    counts = Counter(caption.tokens for caption in captions)
    return -sum(n / len(captions) * math.log(n / len(captions)) for n in counts.values())


@pytest.mark.parametrize(
    "settings",
    [
        [{"temperature": t} for t in (0.1, 0.5, 1.0, 3.0)],
        [{"top_k": k} for k in (1, 2, 4, 0)],
        [{"top_p": p} for p in (0.1, 0.6, 0.9, 1.0)],
    ],
    ids=lambda settings: next(iter(settings[0])),
)
def test_more_freedom_gives_more_varied_draws(settings: list[dict[str, Any]]) -> None:
    decoder = Table(torch.randn(10, 10, generator=torch.Generator().manual_seed(0)))
    varied = [
        entropy(
            decode(decoder, decoder.features(1), Rules(options_of("sample", num_captions=2000, max_length=2, **knob)))[
                0
            ]
        )
        for knob in settings
    ]
    assert all(less + 0.05 < more for less, more in itertools.pairwise(varied)), varied


def test_the_seed_fixes_the_draws() -> None:
    decoder, features = network(2), pictures(3)
    first, again, other = (decode(decoder, features, Rules(options_of("sample", seed=seed))) for seed in (1, 1, 2))
    assert first == again
    assert tokens_of(first) != tokens_of(other)


def test_draws_of_one_picture_differ() -> None:
    [captions] = decode(network(2, end=-3.0), pictures(1), Rules(options_of("sample", num_captions=20)))
    assert len({caption.tokens for caption in captions}) > 10


def test_sampling_neither_uses_nor_moves_the_global_generator() -> None:
    decoder, features = network(2), pictures(3)
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), decode(decoder, features, Rules(SAMPLE))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert decode(decoder, features, Rules(SAMPLE)) == first


@pytest.mark.parametrize("number", [1, 3, 10])
def test_asking_for_more_captions_keeps_the_first_draws(number: int) -> None:
    decoder, features = network(4), pictures(3)
    few = decode(decoder, features, Rules(options_of("sample", num_captions=number)))
    many = decode(decoder, features, Rules(options_of("sample", num_captions=2 * number + 1)))
    for some, more in zip(tokens_of(few), tokens_of(many), strict=True):
        assert Counter(some) <= Counter(more)


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_draws_are_the_same_however_many_are_made_at_a_time(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, features, options = network(4), pictures(2), options_of("sample", num_captions=5, max_length=6)
    at_once = decode(decoder, features, Rules(options))
    monkeypatch.setattr(decoding, "ROWS", rows)
    assert tokens_of(decode(decoder, features, Rules(options))) == tokens_of(at_once)


def test_draws_come_best_first() -> None:
    for captions in decode(network(4), pictures(5), Rules(options_of("sample", num_captions=20))):
        logprobs = [caption.logprob for caption in captions]
        assert logprobs == sorted(logprobs, reverse=True)
        assert len(set(logprobs)) > 1


# Captions that begin as they are told

# All of EVERY_WAY leave room for it.
PROMPT = (A, B, A)


@pytest.mark.parametrize("options", EVERY_WAY)
def test_every_caption_begins_with_the_prompt_and_its_probabilities_are_the_decoders(options: DecodeOptions) -> None:
    decoder, features = network(6, words=9), pictures(5)
    captions = decode(decoder, features, Rules(options, PROMPT))
    assert tokens_of(captions) != tokens_of(decode(decoder, features, Rules(options)))
    for feature, hypotheses in zip(features, captions, strict=True):
        assert len(hypotheses) == options.num_captions
        for caption in hypotheses:
            assert caption.tokens[:3] == PROMPT
            assert len(caption.tokens) > 3
            assert not {PAD, START, UNK} & set(caption.tokens)
            assert options.min_length <= len(words_of(caption)) <= options.max_length
            assert caption.finished or len(caption.tokens) == options.max_length
            assert caption.token_logprobs == pytest.approx(forced(decoder, feature, caption.tokens), abs=1e-5)


@pytest.mark.parametrize("options", [*EVERY_WAY[:2], *(options_of("sample", seed=seed) for seed in range(4))])
def test_a_caption_goes_on_from_its_own_beginning_to_the_same_end(options: DecodeOptions) -> None:
    """Draws too: a word's random number is that of its place."""
    decoder, features, compared = network(2, words=9), pictures(8), 0
    for feature in features.split(1):
        [[caption]] = decode(decoder, feature, Rules(options))
        for length in range(min(len(words_of(caption)), options.max_length - 1) + 1):
            [[again]] = decode(decoder, feature, Rules(options, caption.tokens[:length]))
            assert again.tokens == caption.tokens
            assert again.token_logprobs == pytest.approx(caption.token_logprobs, abs=1e-5)
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("prompt", [(A,), (B, A), (C, C, A)], ids=str)
def test_a_beam_that_prunes_nothing_finds_the_best_captions_with_that_beginning(
    prompt: tuple[int, ...], length_penalty: float
) -> None:
    decoder, features = network(3, words=3), pictures(3)
    options = options_of(beam_size=100, num_captions=100, max_length=4, length_penalty=length_penalty)
    for feature, captions in zip(features.split(1), decode(decoder, features, Rules(options, prompt)), strict=True):
        possible = [c for c in every_caption(decoder, feature, 4) if c[0][: len(prompt)] == prompt]
        given = sum(forced(decoder, feature[0], prompt))
        possible.sort(key=lambda c: (c[0][-1] != END, (given - c[1]) / (len(c[0]) - len(prompt)) ** length_penalty))
        assert [caption.tokens for caption in captions] == [tokens for tokens, _ in possible]
        assert [caption.logprob for caption in captions] == pytest.approx([p for _, p in possible], abs=1e-4)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("options", STRATEGIES)
def test_no_sequence_of_the_prompt_is_written_again(options: DecodeOptions, n: int) -> None:
    def captions(no_repeat_ngram: int) -> list[tuple[int, ...]]:
        rules = options_of(options.strategy, max_length=7, no_repeat_ngram=no_repeat_ngram)
        return [words_of(c) for [c] in decode(network(1, end=-5.0), pictures(20), Rules(rules, (A, B, C)))]

    assert any(repeats(words, n) for words in captions(0))
    assert not any(repeats(words, n) for words in captions(n))


@pytest.mark.parametrize("options", STRATEGIES)
def test_the_least_length_counts_the_words_of_the_prompt(options: DecodeOptions) -> None:
    decoder = table({word: {B: 1e-6, END: 1.0} for word in (A, B, C, D)})
    for least, length in ((0, 2), (2, 2), (3, 3), (5, 5)):
        rules = options_of(options.strategy, min_length=least)
        [[caption]] = decode(decoder, decoder.features(1), Rules(rules, (A, B)))
        assert words_of(caption) == (A, *(B,) * (length - 1))


@pytest.mark.parametrize("options", EVERY_WAY)
def test_a_prompt_means_the_same_alone_and_in_a_batch(options: DecodeOptions) -> None:
    decoder, features = network(2, words=9), pictures(7)
    batch = tokens_of(decode(decoder, features, Rules(options, PROMPT)))
    assert [tokens_of(decode(decoder, row, Rules(options, PROMPT)))[0] for row in features.split(1)] == batch
    assert len({tuple(captions) for captions in batch}) > 1


def test_a_beam_of_one_is_greedy_after_a_prompt() -> None:
    decoder, features = network(0), pictures(12)
    greedy = decode(decoder, features, Rules(options_of("greedy"), PROMPT))
    one = options_of(beam_size=1)
    assert decode(decoder, features, Rules(one, PROMPT)) == greedy
    assert tokens_of(beam(decoder, features, Rules(one, PROMPT))) == tokens_of(greedy)


@pytest.mark.parametrize("options", STRATEGIES)
def test_a_prompt_may_leave_room_for_a_single_word(options: DecodeOptions) -> None:
    rules = Rules(options_of(options.strategy, max_length=3), (A, B))
    for [caption] in decode(network(0), pictures(2), rules):
        assert caption.tokens[:2] == (A, B)
        assert len(caption.tokens) == 3


# Every kind of decoder


@pytest.mark.parametrize(
    ("cell", "layers"), [("gru", 1), ("lstm", 2), ("rnn", 2), ("rnn-relu", 1), ("peephole", 2)], ids=str
)
class TestEveryKindOfDecoder:
    def test_a_beam_of_one_is_greedy(self, cell: str, layers: int) -> None:
        decoder, features = network(0, cell=cell, layers=layers), pictures(12)
        greedy, one = decode(decoder, features, Rules(GREEDY)), options_of(beam_size=1, max_length=8)
        assert tokens_of(beam(decoder, features, Rules(one))) == tokens_of(greedy)

    def test_a_beam_that_prunes_nothing_equals_brute_force(self, cell: str, layers: int) -> None:
        """Which shows that every part of the state follows its hypothesis."""
        decoder, features = network(0, words=3, cell=cell, layers=layers), pictures(2)
        options = options_of(beam_size=100, num_captions=100, max_length=3, length_penalty=1.0)
        for feature, captions in zip(features.split(1), decode(decoder, features, Rules(options)), strict=True):
            possible = sorted(every_caption(decoder, feature, 3), key=lambda c: (c[0][-1] != END, -c[1] / len(c[0])))
            assert [caption.tokens for caption in captions] == [tokens for tokens, _ in possible]

    @pytest.mark.parametrize("prompt", [(), (A, B)], ids=str)
    @pytest.mark.parametrize("options", STRATEGIES)
    def test_batched_equals_single_and_the_probabilities_are_those_of_forward(
        self, cell: str, layers: int, options: DecodeOptions, prompt: tuple[int, ...]
    ) -> None:
        decoder, features = network(1, words=9, cell=cell, layers=layers), pictures(5)
        batch = decode(decoder, features, Rules(options, prompt))
        assert len({tuple(tokens) for tokens in tokens_of(batch)}) > 1
        for row, captions in zip(features, batch, strict=True):
            assert tokens_of(decode(decoder, row.unsqueeze(0), Rules(options, prompt))) == tokens_of([captions])
            for caption in captions:
                expected = forced(decoder, row, caption.tokens)
                assert caption.token_logprobs == pytest.approx(expected, abs=1e-5, rel=1e-6)

    @pytest.mark.parametrize("options", STRATEGIES)
    def test_without_a_picture_it_is_a_language_model(self, cell: str, layers: int, options: DecodeOptions) -> None:
        decoder = network(1, words=9, cell=cell, layers=layers)
        [captions] = decoding.decode(TorchSteps(decoder), decoder.zero_state(1), 1, Rules(options))
        assert len(captions) == options.num_captions
        for caption in captions:
            with torch.inference_mode():
                hidden, _ = decoder.read(torch.tensor([[START, *caption.tokens[:-1]]]), decoder.zero_state(1))
                full = decoder.logits(hidden)[0].log_softmax(-1)
            expected = full[range(len(caption.tokens)), caption.tokens].tolist()
            assert caption.token_logprobs == pytest.approx(expected, abs=1e-5, rel=1e-6)


# What holds for every strategy


@pytest.mark.parametrize("options", EVERY_WAY)
def test_a_picture_gets_the_same_captions_alone_in_a_batch_and_in_options_of(options: DecodeOptions) -> None:
    for seed in range(3):  # without near-ties: see `network`
        decoder, features = network(seed, words=9), pictures(9, seed)
        batch = tokens_of(decode(decoder, features, Rules(options)))
        assert [tokens_of(decode(decoder, row, Rules(options)))[0] for row in features.split(1)] == batch
        assert [
            caption for part in features.split(4) for caption in tokens_of(decode(decoder, part, Rules(options)))
        ] == batch
        order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
        assert tokens_of(decode(decoder, features[order], Rules(options))) == [batch[i] for i in order.tolist()]
        assert len({tuple(captions) for captions in batch}) > 1  # the pictures are told apart


@pytest.mark.parametrize("options", EVERY_WAY)
def test_probabilities_are_those_of_the_full_softmax(options: DecodeOptions) -> None:
    """Whatever was banned, cut or heated to come to the caption."""
    decoder, features = network(6, words=9), pictures(5)
    for feature, captions in zip(features, decode(decoder, features, Rules(options)), strict=True):
        for caption in captions:
            expected = forced(decoder, feature, caption.tokens)
            assert caption.token_logprobs == pytest.approx(expected, abs=1e-5)
            assert math.exp(caption.logprob) == pytest.approx(math.prod(map(math.exp, expected)), rel=1e-4)


@pytest.mark.parametrize("options", EVERY_WAY)
def test_special_tokens_are_never_written_even_where_the_decoder_prefers_them(options: DecodeOptions) -> None:
    decoder = Table(torch.randn(20, 20, generator=torch.Generator().manual_seed(0)))
    decoder.logits[:, [PAD, START, UNK]] += 20.0
    captions = [caption for picture in decode(decoder, decoder.features(2), Rules(options)) for caption in picture]
    assert not {PAD, START, UNK} & {token for caption in captions for token in caption.tokens}
    assert all(logprob < -10.0 for caption in captions for logprob in caption.token_logprobs)


@pytest.mark.parametrize("options", STRATEGIES)
@pytest.mark.parametrize(("name", "values"), [("min_length", (0, 3, 8)), ("max_length", (1, 4, 8))])
def test_the_length_is_within_its_limits(options: DecodeOptions, name: str, values: tuple[int, ...]) -> None:
    decoder = Table(torch.zeros(9, 9))  # every word as likely as any, `<end>` as the picture says
    features = 3 * torch.randn(40, 9, generator=torch.Generator().manual_seed(0)) * torch.eye(9)[END]
    totals = []
    for value in values:
        limited = options_of(options.strategy, **{"max_length": 8, name: value})
        lengths = [len(words_of(caption)) for [caption] in decode(decoder, features, Rules(limited))]
        assert all(limited.min_length <= length <= limited.max_length for length in lengths)
        totals.append(sum(lengths))
    assert totals[0] < totals[1] < totals[2]


@pytest.mark.parametrize("options", STRATEGIES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_sequence_of_n_words_occurs_twice(options: DecodeOptions, n: int) -> None:
    def captions(no_repeat_ngram: int) -> list[tuple[int, ...]]:
        rules = options_of(options.strategy, max_length=20, no_repeat_ngram=no_repeat_ngram)
        return [words_of(caption) for [caption] in decode(network(1, end=-5.0), pictures(20), Rules(rules))]

    assert any(repeats(words, n) for words in captions(0))
    assert not any(repeats(words, n) for words in captions(n))
    assert any(repeats(words, n) for words in captions(n + 1))  # it forbids no more than it says


@pytest.mark.parametrize(("strategy", "more"), [("sample", {}), ("beam", {"beam_size": 7})])
@pytest.mark.parametrize("number", [1, 2, 7])
def test_as_many_captions_are_given_as_asked_for(strategy: str, more: dict[str, int], number: int) -> None:
    captions = decode(network(1), pictures(3), Rules(options_of(strategy, num_captions=number, **more)))
    assert [len(picture) for picture in captions] == [number] * 3


@pytest.mark.parametrize("strategy", ["greedy", "sample", "beam"])
@pytest.mark.parametrize("words", [0, 1, 2])
@pytest.mark.parametrize("end", [0.0, -1e4, -math.inf])
@pytest.mark.parametrize("rules", [{"no_repeat_ngram": 1, "min_length": 9}, {"min_length": 20}], ids=str)
def test_there_is_a_caption_even_where_the_rules_leave_nothing(
    strategy: str, words: int, end: float, rules: dict[str, int]
) -> None:
    decoder = network(0, words=words, end=end)
    for captions in decode(decoder, pictures(3), Rules(options_of(strategy, **rules))):
        assert len(captions) == 1
        [caption] = captions
        assert caption.finished == (words == 0 or "no_repeat_ngram" in rules)
        assert len(words_of(caption)) == (words if caption.finished else 20)
        assert not {PAD, START, UNK} & set(caption.tokens)
        assert caption.logprob <= 0.0


def test_a_beam_wider_than_the_number_of_captions_gives_those_there_are() -> None:
    captions = decode(network(0, words=1), pictures(2), Rules(options_of(beam_size=50, num_captions=50, max_length=3)))
    assert [len(picture) for picture in captions] == [4, 4]  # "", "a", "a a", and "a a a", cut off
    assert all(len(set(tokens)) == 4 for tokens in tokens_of(captions))


@pytest.mark.parametrize("options", EVERY_WAY)
def test_no_pictures_give_no_captions(options: DecodeOptions) -> None:
    assert decode(network(0), pictures(0), Rules(options)) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", STRATEGIES)
def test_any_precision_of_the_network_will_do(options: DecodeOptions, dtype: torch.dtype) -> None:
    decoder = network(0).to(dtype)
    for captions in decode(decoder, pictures(3).to(dtype), Rules(options)):
        assert all(math.isfinite(caption.logprob) for caption in captions)


class TestEvidence:
    """Words are chosen by the product of the decoder's probabilities and of the evidence for them in the picture."""

    def test_a_beam_that_prunes_nothing_ranks_by_the_product(self) -> None:
        decoder, features = network(0, words=3), pictures(2)
        evidence = torch.randn(2, 7, generator=torch.Generator().manual_seed(1)).double()
        options = options_of(beam_size=100, num_captions=100, max_length=3, length_penalty=1.0, evidence=0.5)
        found = decode(decoder, features, Rules(options), evidence=evidence)
        for feature, weights, captions in zip(features.split(1), evidence, found, strict=True):

            def product(tokens: tuple[int, ...], feature: Tensor = feature, weights: Tensor = weights) -> float:
                logits = decoder(feature, torch.tensor([[START, *tokens[:-1]]]))[0] + 0.5 * weights
                return float(logits.log_softmax(-1)[range(len(tokens)), tokens].sum())

            possible = [tokens for tokens, _ in every_caption(decoder, feature, 3)]
            possible.sort(key=lambda tokens: (tokens[-1] != END, -product(tokens) / len(tokens)))
            assert [caption.tokens for caption in captions] == possible
            for caption in captions:  # the probabilities are the decoder's own
                assert caption.token_logprobs == pytest.approx(forced(decoder, feature[0], caption.tokens))

    @pytest.mark.parametrize("options", EVERY_WAY)
    def test_every_picture_has_its_own(self, options: DecodeOptions) -> None:
        decoder, features = network(0), pictures(9)
        evidence = 3 * torch.randn(9, 10, generator=torch.Generator().manual_seed(1)).double()
        rules = Rules(replace(options, evidence=1.0))
        together = decode(decoder, features, rules, evidence=evidence)
        alone = [
            decode(decoder, *each, rules, evidence=e)
            for *each, e in zip(features.split(1), evidence.split(1), strict=True)
        ]
        assert tokens_of(together) == [tokens for [tokens] in map(tokens_of, alone)]
        assert tokens_of(together) != tokens_of(decode(decoder, features, rules))

    @pytest.mark.parametrize("options", STRATEGIES)
    def test_a_weight_of_zero_leaves_everything_as_it_is(self, options: DecodeOptions) -> None:
        decoder, features, evidence = network(0), pictures(3), torch.randn(3, 10).double()
        plain = decode(decoder, features, Rules(options))
        assert decode(decoder, features, Rules(replace(options, evidence=0.0)), evidence=evidence) == plain


class TestRequiredWords:
    @pytest.mark.parametrize("required", [(A,), (A, C), (C, A, B)])
    @pytest.mark.parametrize("prompt", [(), (B,)], ids=str)
    def test_a_beam_that_prunes_nothing_finds_the_best_captions_that_have_them(
        self, required: tuple[int, ...], prompt: tuple[int, ...]
    ) -> None:
        decoder, features = network(0, words=3), pictures(2)
        options = options_of(beam_size=100, num_captions=20, max_length=4, length_penalty=1.0)
        found = decode(decoder, features, Rules(options, prompt, required=required))
        for feature, captions in zip(features.split(1), found, strict=True):
            every = [c for c, _ in every_caption(decoder, feature, 4) if c[: len(prompt)] == prompt]
            possible = [c for c in every if c[-1] == END and set(required) <= set(c)]

            def score(tokens: tuple[int, ...], feature: Tensor = feature) -> float:
                values = forced(decoder, feature[0], tokens)[len(prompt) :]
                return -sum(values) / len(values)

            possible.sort(key=score)
            ended = [caption.tokens for caption in captions if caption.finished]
            assert ended == possible[: len(ended)]
            assert len(ended) == min(20, len(possible))
            for caption in captions:
                assert set(required) <= set(caption.tokens)
                assert caption.token_logprobs == pytest.approx(forced(decoder, feature[0], caption.tokens))

    def test_where_other_rules_keep_all_from_having_them_there_is_a_caption_with_most(self) -> None:
        rules = Rules(options_of(beam_size=2, max_length=3), avoided=((A, B), (B, A), (C, B), (D, B)), required=(A, B))
        for [best] in decode(network(0, words=4), pictures(3), rules):
            assert {A, B} & set(best.tokens)

    @pytest.mark.parametrize("size", [1, 3])
    def test_every_caption_has_them_and_is_that_of_the_picture_alone(self, size: int) -> None:
        decoder, features = network(0), pictures(9)
        rules = Rules(options_of(beam_size=size, max_length=8), required=(B, D))
        together = decode(decoder, features, rules)
        assert all({B, D} <= set(best.tokens) for [best] in together)
        assert tokens_of(together) == [tokens_of(decode(decoder, each, rules))[0] for each in features.split(1)]
        assert len({best.tokens for [best] in together}) > 1
