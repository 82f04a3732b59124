"""Metrics against their definitions, worked out by hand, and against the reference implementation."""

from __future__ import annotations

import math
import random
import warnings

import numpy as np
import pytest
from nltk.translate.bleu_score import corpus_bleu, sentence_bleu
from pycocoevalcap.bleu.bleu import Bleu as CocoBleu
from pycocoevalcap.cider.cider import Cider as CocoCider
from pycocoevalcap.rouge.rouge import Rouge as CocoRouge
from sentences import scenes

from captioner.evaluation.metrics import (
    Cider,
    DocumentFrequencies,
    best_constant_caption,
    bleu,
    bleu_counts,
    bleu_of_counts,
    longest_common_subsequence,
    rouge_l,
    smoothed_bleu,
)
from captioner.vocab import Vocabulary, tokenise


def w(text: str) -> list[str]:
    """Words."""
    return text.split()


Corpus = tuple[list[list[str]], list[list[list[str]]]]

# Two pictures; the arithmetic is in the tests.
HYPOTHESES = [w(text) for text in ("a dog runs on grass", "the the cat sits")]
REFERENCES = [
    [w(text) for text in those]
    for those in (
        ("a dog runs on the grass", "the dog is running"),
        ("the cat sits down on it", "a cat is on the big bed"),
    )
]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """400 scenes with five references each, tokenised."""
    captions, references = scenes(400)
    return [tokenise(text) for text in captions], [[tokenise(text) for text in those] for those in references]


def in_coco_form(corpus: Corpus) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    hypotheses, references = corpus
    return (
        {number: [" ".join(words) for words in those] for number, those in enumerate(references)},
        {number: [" ".join(words)] for number, words in enumerate(hypotheses)},
    )


def cider_of(corpus: Corpus) -> list[float]:
    hypotheses, references = corpus
    cider = Cider(references.__getitem__, DocumentFrequencies.of(references))
    return [cider.score(number, words) for number, words in enumerate(hypotheses)]


# --- worked out by hand -------------------------------------------------------------------------------------------


def test_bleu_by_hand() -> None:
    # Matches of order 1, 2, 3, 4, each of n-grams:
    #   "a dog runs on grass": 5 of 5; a-dog, dog-runs, runs-on 3 of 4; a-dog-runs, dog-runs-on 2 of 3;
    #                          a-dog-runs-on 1 of 2
    #   "the the cat sits":    "the" is in a reference once only, so 3 of 4; the-cat, cat-sits 2 of 3;
    #                          the-cat-sits 1 of 2; 0 of 1
    # Together:                8/9, 5/7, 3/5, 1/3
    # Length: 5 + 4 = 9 words. Closest references: 4 and 6 are both 1 from 5, the shorter counts: 4; of 6 and 7, 6.
    # 4 + 6 = 10 is more than 9: brevity penalty exp(1 - 10/9).
    assert [bleu_counts(*pair) for pair in zip(HYPOTHESES, REFERENCES, strict=True)] == [
        [5, 3, 2, 1, 5, 4, 3, 2, 5, 4],
        [3, 2, 1, 0, 4, 3, 2, 1, 4, 6],
    ]
    brevity = math.exp(1 - 10 / 9)
    expected = [
        100 * brevity * (8 / 9),
        100 * brevity * (8 / 9 * 5 / 7) ** (1 / 2),
        100 * brevity * (8 / 9 * 5 / 7 * 3 / 5) ** (1 / 3),
        100 * brevity * (8 / 9 * 5 / 7 * 3 / 5 * 1 / 3) ** (1 / 4),
    ]
    assert expected[3] == pytest.approx(53.41736, abs=1e-5)
    assert bleu(HYPOTHESES, REFERENCES) == pytest.approx(expected, abs=1e-9)


def test_smoothed_bleu_by_hand() -> None:
    # "the the cat sits": 3/4, then one added above and below: (2+1)/(3+1), (1+1)/(2+1), (0+1)/(1+1).
    expected = 100 * math.exp(1 - 6 / 4) * (3 / 4 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)
    assert smoothed_bleu(bleu_counts(HYPOTHESES[1], REFERENCES[1])) == pytest.approx(expected, abs=1e-9)
    assert smoothed_bleu(bleu_counts([], REFERENCES[1])) == 0.0


def test_cider_by_hand() -> None:
    references = [[w("a dog runs")], [w("a cat")]]
    cider = Cider(references.__getitem__, DocumentFrequencies.of(references))
    # Two documents: "a" is in both, its weight is log 2 - log 2 = 0; all other n-grams weigh L = log 2 - log 1, and
    # so do those in none. The length of a vector is its norm:
    #   reference "a dog runs": words (dog L, runs L), norm L sqrt 2; pairs the same; the triple L
    #   caption "a dog":        words (dog L), norm L; pairs (a-dog L), norm L; no more
    # Cosines: L*L / (L * L sqrt 2) = 1/sqrt 2 for words and for pairs, 0 for triples and quadruples. The caption has
    # 1 pair, the reference 2: penalty exp(-1 / (2 * 6^2)). Times the 10 of the paper, times 100.
    assert cider.score(0, w("a dog")) == pytest.approx(1000 * (2 / math.sqrt(2)) / 4 * math.exp(-1 / 72), abs=1e-9)
    assert cider.score(0, w("a dog")) == pytest.approx(348.67684, abs=1e-4)
    # "a dog dog": dog weighs 2 L, norm 2 L, of which no more than the reference's L count:
    #   L*L / (2 L * L sqrt 2) = 1/(2 sqrt 2); pairs a-dog, dog-dog: L*L / (L sqrt 2 * L sqrt 2) = 1/2; as long.
    assert cider.score(0, w("a dog dog")) == pytest.approx(1000 * (1 / (2 * math.sqrt(2)) + 1 / 2) / 4, abs=1e-9)
    # Alike in all that a caption of three words can have: three of four cosines are 1.
    assert cider.score(0, w("a dog runs")) == pytest.approx(750.0, abs=1e-9)
    assert cider.score(1, w("a dog runs")) == 0.0
    assert cider.score(0, []) == 0.0


def test_cider_is_the_mean_over_references() -> None:
    references = [[w("a dog runs"), w("a red bird")], [w("a cat")]]
    cider = Cider(references.__getitem__, DocumentFrequencies.of(references))
    assert cider.score(0, w("a dog runs")) == pytest.approx(750.0 / 2, abs=1e-9)


def test_cider_takes_document_frequencies_from_elsewhere() -> None:
    # The reward of self-critical training: how rare words are is known from the training captions.
    references = [[w("a dog runs")]]
    alone = Cider(references.__getitem__, DocumentFrequencies.of(references))
    assert alone.score(0, w("a dog runs")) == 0.0, "in a single document nothing is rare"
    training = DocumentFrequencies.of([[w("a dog")], [w("a cat runs")], [w("a dog sits")]])
    assert training.documents == 3
    assert training.counts["dog",] == 2
    assert training.counts["a", "dog"] == 2
    rewarded = Cider(references.__getitem__, training)
    # a: log 3/3 = 0; dog: log 3/2; runs: log 3/1. "runs" is rarer and counts for more.
    dog, runs = math.log(3 / 2), math.log(3)
    norm = math.hypot(dog, runs)
    penalty = math.exp(-(2**2) / 72)
    assert rewarded.score(0, ["dog"]) == pytest.approx(1000 * (dog / norm) / 4 * penalty, abs=1e-9)
    assert rewarded.score(0, ["runs"]) == pytest.approx(1000 * (runs / norm) / 4 * penalty, abs=1e-9)
    with pytest.raises(ValueError, match="at least one picture"):
        Cider(references.__getitem__, DocumentFrequencies.of([]))


def test_rouge_by_hand() -> None:
    # The longest common subsequence with "a dog runs on the grass" has all 5 words: precision 5/5, recall 5/6; that
    # with "the dog is running" is "dog": 1/5, 1/4. The best of each, beta 1.2: (1 + 1.44) P R / (R + 1.44 P).
    expected = 100 * 2.44 * 1 * (5 / 6) / (5 / 6 + 1.44)
    assert rouge_l(HYPOTHESES[0], REFERENCES[0]) == pytest.approx(expected, abs=1e-9)
    assert rouge_l(["fish"], REFERENCES[0]) == 0.0
    assert rouge_l([], REFERENCES[0]) == 0.0
    assert rouge_l(["fish"], [[]]) == 0.0


def test_longest_common_subsequence_equals_the_table(corpus: Corpus) -> None:
    def by_table(first: list[str], second: list[str]) -> int:
        table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
        for i, word in enumerate(first, start=1):
            for j, other in enumerate(second, start=1):
                table[i, j] = table[i - 1, j - 1] + 1 if word == other else max(table[i - 1, j], table[i, j - 1])
        return int(table[-1, -1])

    for words, those in zip(*corpus, strict=True):
        assert longest_common_subsequence(words, those[0]) == by_table(words, those[0])
    assert longest_common_subsequence([], ["a"]) == longest_common_subsequence(["a"], []) == 0
    long = [str(number % 7) for number in range(200)]  # more words than a machine word has bits
    assert longest_common_subsequence(long, long[3:]) == 197


# --- the reference implementation ---------------------------------------------------------------------------------


def test_bleu_equals_pycocoevalcap(corpus: Corpus) -> None:
    theirs, _ = CocoBleu(4).compute_score(*in_coco_form(corpus), verbose=0)
    assert min(len(words) for words in corpus[0]) < 4, "short captions, where nltk alone differs, must be among them"
    assert bleu(*corpus) == pytest.approx([100 * value for value in theirs], abs=1e-6)
    assert 10 < bleu(*corpus)[3] < 60


def test_cider_equals_pycocoevalcap(corpus: Corpus) -> None:
    mean, theirs = CocoCider().compute_score(*in_coco_form(corpus))
    ours = cider_of(corpus)
    assert ours == pytest.approx([100 * value for value in theirs], abs=1e-6)
    assert sum(ours) / len(ours) == pytest.approx(100 * mean, abs=1e-6)
    assert 20 < 100 * mean < 300


def test_rouge_equals_pycocoevalcap(corpus: Corpus) -> None:
    _, theirs = CocoRouge().compute_score(*in_coco_form(corpus))
    ours = [rouge_l(words, those) for words, those in zip(*corpus, strict=True)]
    assert ours == pytest.approx([100 * value for value in theirs], abs=1e-6)


def test_metrics_equal_pycocoevalcap_where_captions_are_odd() -> None:
    hypotheses = [[], ["a"], ["fish"], ["a"] * 30, w("a dog runs in the snow")]
    references = [[w("a dog runs"), ["a"]], [w("a dog")], [w("a a a")], [["a"]], [["snow"], ["the"] * 9]]
    corpus = hypotheses, references
    gts, res = in_coco_form(corpus)
    assert cider_of(corpus) == pytest.approx(
        [100 * value for value in CocoCider().compute_score(gts, res)[1]], abs=1e-6
    )
    ours = [rouge_l(words, those) for words, those in zip(*corpus, strict=True)]
    assert ours == pytest.approx([100 * value for value in CocoRouge().compute_score(gts, res)[1]], abs=1e-6)


# --- counts -------------------------------------------------------------------------------------------------------


def test_summed_counts_give_the_same_bleu(corpus: Corpus) -> None:
    counts = np.array([bleu_counts(words, those) for words, those in zip(*corpus, strict=True)], dtype=np.float64)
    assert bleu_of_counts(counts.sum(0)) == pytest.approx(bleu(*corpus), abs=1e-9)
    some = [3, 5, 5, 17]
    selected = [corpus[0][i] for i in some], [corpus[1][i] for i in some]
    assert bleu_of_counts(counts[some].sum(0)) == pytest.approx(bleu(*selected), abs=1e-9)
    assert bleu_of_counts(np.stack([counts.sum(0), counts[some].sum(0)])).shape == (2, 4)
    assert bleu_of_counts(np.array([0.0] * 9 + [5.0])).tolist() == [0.0] * 4, "an empty caption"


def test_the_counts_of_short_captions_give_the_same_bleu(corpus: Corpus) -> None:
    """Where an order has one n-gram or none, nothing may be added to it, or a caption of one word is half right."""
    for length in range(1, 6):
        words = corpus[1][0][0][:length]
        for those in ([words], [[*words, "more"]], [["other", *words[1:]]]):
            counts = np.array(bleu_counts(words, those), dtype=np.float64)
            theirs, _ = CocoBleu(4).compute_score(*in_coco_form(([words], [those])), verbose=0)
            expected = [100 * value for value in theirs[:length]] + [0.0] * (4 - length)
            assert bleu_of_counts(counts) == pytest.approx(expected, abs=0.05), "coco-caption's 0 is 0.01"
            assert bleu_of_counts(counts) == pytest.approx(bleu([words], [those]), abs=1e-9)


def test_a_bleu_of_zero_is_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bleu_of_counts(np.array([0.0] * 4 + [3.0, 2.0, 1.0, 0.0, 3.0, 3.0])).tolist() == [0.0] * 4
        assert bleu([["fish"]], [[["a", "dog"]]]) == [0.0] * 4


def test_bleu_is_zero_where_nothing_matches() -> None:
    assert bleu([["fish"]], [[["a", "dog"]]]) == [0.0] * 4
    assert bleu([[]], [[["a", "dog"]]]) == [0.0] * 4
    # Words match, pairs do not: BLEU-1 is the penalty for one word instead of two, the others 0.
    assert bleu([["dog"]], [[["a", "dog"]]]) == pytest.approx([100 * math.exp(1 - 2), 0, 0, 0], abs=1e-9)


# --- the floor ----------------------------------------------------------------------------------------------------


def test_the_best_constant_caption_is_that_of_trying_all(corpus: Corpus) -> None:
    references = corpus[1][:15]
    tried = {tuple(words): bleu([words] * 15, references)[3] for those in references for words in those}
    best = best_constant_caption(references)
    assert tried[tuple(best)] == max(tried.values())
    assert sum(value == max(tried.values()) for value in tried.values()) < 3, "most candidates must be worse"


def test_the_floor_counts_a_repeated_word_as_often_as_a_reference_has_it() -> None:
    references = [[["a", "a", "a", "a"]], [["a", "b", "c", "d"]], [["a", "b", "c", "d"]]]
    assert best_constant_caption(references) == ["a", "b", "c", "d"]


def test_the_best_constant_caption_of_references_of_any_length() -> None:
    # Among few letters and lengths, ties between longer and shorter references decide now and then.
    draw = random.Random(0)
    for _ in range(60):
        references = [[draw.choices("ab", k=draw.randint(4, 9)) for _ in range(3)] for _ in range(3)]
        values = [bleu([words] * 3, references)[3] for those in references for words in those]
        assert bleu([best_constant_caption(references)] * 3, references)[3] == pytest.approx(max(values), abs=1e-9)


def test_shorter_sequences_decide_where_no_caption_has_four_words() -> None:
    """BLEU-4 is then 0 for all of them, and BLEU-3 decides, then BLEU-2, then BLEU-1."""
    draw, decisive = random.Random(0), set()
    for _ in range(60):
        references = [[draw.choices("abc", k=draw.randint(1, 3)) for _ in range(3)] for _ in range(4)]
        candidates = sorted({tuple(words) for those in references for words in those})
        values = {words: [round(v, 9) for v in reversed(bleu([words] * 4, references))] for words in candidates}
        best = max(candidates, key=values.__getitem__)  # of equal ones the first
        assert best_constant_caption(references) == list(best)
        rival = max(value for words, value in values.items() if words != best)
        decisive.add(next((4 - place for place in range(4) if rival[place] < values[best][place]), None))
    assert decisive >= {3, 2, 1}, "each must decide now and then"


def test_of_equally_good_constants_the_first_in_the_alphabet_is_taken() -> None:
    assert best_constant_caption([[["b"]], [["a"]]]) == ["a"]
    assert best_constant_caption([[["a"]], [["b"]]]) == ["a"]


# --- classic mistakes: each gives another number, and is not what we do ---------------------------------------------


def test_the_mean_of_sentence_bleu_is_another_number(corpus: Corpus) -> None:
    hypotheses, references = corpus
    with pytest.warns(UserWarning, match="0 counts"):
        mean = 100 * np.mean([sentence_bleu(r, h) for h, r in zip(hypotheses, references, strict=True)])
    assert abs(mean - bleu(*corpus)[3]) > 1


def test_one_row_per_reference_is_another_number(corpus: Corpus) -> None:
    rows = [(words, [one]) for words, those in zip(*corpus, strict=True) for one in those]
    assert bleu([words for words, _ in rows], [those for _, those in rows])[3] < bleu(*corpus)[3] - 5


def test_end_left_in_is_another_number(corpus: Corpus) -> None:
    hypotheses, references = corpus
    ended = [[*words, "<end>"] for words in hypotheses], [[[*w, "<end>"] for w in those] for those in references]
    assert bleu(*ended)[3] > bleu(*corpus)[3] + 1


def test_unknown_words_in_the_references_are_another_number(corpus: Corpus) -> None:
    hypotheses, references = corpus
    vocabulary = Vocabulary.build([" ".join(words) for those in references for words in those], minimum_count=400)

    def as_ids(words: list[str]) -> list[str]:
        return vocabulary.decode(vocabulary.encode(" ".join(words)))

    unknown = [as_ids(words) for words in hypotheses]
    assert any("<unk>" in words for words in unknown)
    mapped = bleu(unknown, [[as_ids(words) for words in those] for those in references])[3]
    assert mapped > bleu(unknown, references)[3] + 5, "<unk> matches <unk>, whatever the word was"


def test_strings_for_lists_are_another_number_and_are_refused(corpus: Corpus) -> None:
    hypotheses = [" ".join(words) for words in corpus[0]]
    references = [[" ".join(words) for words in those] for those in corpus[1]]
    assert 100 * corpus_bleu(references, hypotheses) > bleu(*corpus)[3] + 10, "BLEU of letters"
    with pytest.raises(ValueError, match="lists of words"):
        bleu(hypotheses, references)
    with pytest.raises(ValueError, match="lists of words"):
        bleu(corpus[0], references)
    with pytest.raises(ValueError, match="lists of words"):
        bleu([["a"], ["b"]], [[["a"]], "b"])
    with pytest.raises(ValueError, match="lists of words"):
        bleu([["a"], "b"], [[["a"]], [["b"]]])


def test_captions_and_references_must_match() -> None:
    with pytest.raises(ValueError, match="2 captions for the references of 1 pictures"):
        bleu([["a"], ["b"]], [[["a"]]])
    with pytest.raises(ValueError, match="0 captions"):
        bleu([], [])
    with pytest.raises(ValueError, match="no reference captions"):
        bleu([["a"], ["b"]], [[["a"]], []])


def test_an_n_gram_of_one_document_takes_no_memory() -> None:
    """It weighs as much as one of no document, and most n-grams of a large set occur once."""
    references = [[w("a dog runs fast")], [w("a dog sits down")]]
    cider = Cider(references.__getitem__, DocumentFrequencies.of(references))
    assert cider._seen.keys() == {("a",), ("dog",), ("a", "dog")}
