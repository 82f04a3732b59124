"""Scores of texts, and the yardsticks beside them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from sentences import scenes

from captioner.evaluation.metrics import bleu, bleu_of_counts
from captioner.evaluation.scores import METRICS, Evaluation, markdown_table, recipe, score_captions, score_pictures
from captioner.vocab import END, START, Vocabulary, tokenise


@pytest.fixture(scope="module")
def corpus() -> tuple[dict[str, str], dict[str, list[str]]]:
    """Captions and references of 60 pictures, by name."""
    captions, references = scenes(60, people=3)
    names = [f"{number:02}.jpg" for number in range(60)]
    return dict(zip(names, captions, strict=True)), dict(zip(names, references, strict=True))


@pytest.fixture(scope="module")
def evaluation(corpus: tuple[dict[str, str], dict[str, list[str]]]) -> Evaluation:
    return score_pictures(*corpus)


def test_captions_are_compared_as_words_without_case_and_punctuation() -> None:
    scores = score_captions(["A dog runs fast!", "Two cats ."], [["a DOG runs , fast ."], ["two cats", "kittens"]])
    assert [scores[f"bleu_{n}"] for n in range(1, 5)] == pytest.approx([100.0] * 4)
    assert scores["rouge_l"] == pytest.approx(100.0)
    assert (scores["images"], scores["references"], scores["distinct"]) == (2, 3, 2)


def test_distinct_captions_are_counted_as_words() -> None:
    assert score_captions(["A dog.", "a dog", "a cat"], [["x"]] * 3)["distinct"] == 2


def test_scores_are_the_means_of_cider_and_rouge_and_the_bleu_of_the_corpus(evaluation: Evaluation) -> None:
    pictures = evaluation.pictures
    assert evaluation.scores["cider"] == pytest.approx(sum(p.cider for p in pictures) / 60)
    assert evaluation.scores["rouge_l"] == pytest.approx(sum(p.rouge_l for p in pictures) / 60)
    counts = np.array([p.bleu_counts for p in pictures], dtype=np.float64)
    assert [evaluation.scores[f"bleu_{n}"] for n in range(1, 5)] == pytest.approx(list(bleu_of_counts(counts.sum(0))))
    mean = sum(p.smoothed_bleu_4 for p in pictures) / 60
    assert abs(mean - evaluation.scores["bleu_4"]) > 1, "the mean of sentence BLEU is another number"


def test_an_unknown_word_matches_nothing_and_the_end_is_no_word() -> None:
    vocabulary = Vocabulary.build(["a dog runs on grass"])
    ids = [START, *vocabulary.encode("a zebra runs on grass"), END]
    assert vocabulary.text(ids) == "A <unk> runs on grass"
    # 4 of 5 words are in the reference. Were its "zebra" unknown too, it would be 5 of 5; with <end>, 5 of 6.
    scores = score_captions([vocabulary.text(ids)], [["a zebra runs on grass"]])
    assert scores["bleu_1"] == pytest.approx(100 * 4 / 5)


def test_training_may_pass_tuples_of_references() -> None:
    assert score_captions(("a dog",), (("a dog", "a cat"),))["bleu_1"] == pytest.approx(100.0)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 captions"):
        score_captions([], [])
    with pytest.raises(ValueError, match="no reference captions"):
        score_captions(["a dog"], [[]])


def test_the_order_of_pictures_does_not_matter(corpus: tuple[dict[str, str], dict[str, list[str]]]) -> None:
    captions, references = corpus
    turned = dict(reversed(captions.items())), dict(reversed(references.items()))
    assert score_pictures(*turned).to_json() == score_pictures(captions, references).to_json()


def test_the_human_row_holds_each_reference_out_in_turn(
    corpus: tuple[dict[str, str], dict[str, list[str]]], evaluation: Evaluation
) -> None:
    captions, references = corpus
    texts = [[tokenise(text) for text in references[name]] for name in sorted(references)]
    human, model = [], []
    for turn in range(3):
        out = [(number + turn) % 3 for number in range(60)]
        left = [[t for k, t in enumerate(those) if k != o] for those, o in zip(texts, out, strict=True)]
        human.append(bleu([those[o] for those, o in zip(texts, out, strict=True)], left)[3])
        model.append(bleu([tokenise(captions[name]) for name in sorted(captions)], left)[3])
    assert evaluation.human is not None
    assert evaluation.against_as_many is not None
    assert evaluation.human["bleu_4"] == pytest.approx(sum(human) / 3)
    assert evaluation.against_as_many["bleu_4"] == pytest.approx(sum(model) / 3)
    assert (evaluation.human["images"], evaluation.human["references_each"], evaluation.human["turns"]) == (60, "2", 3)
    assert evaluation.against_as_many["bleu_4"] < evaluation.scores["bleu_4"], "more references, more matches"
    assert evaluation.human["cider"] > evaluation.against_as_many["cider"], "the grammar writes better than the model"


def test_many_pictures_need_fewer_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.evaluation.scores._HELD_OUT", 20)
    captions, references = scenes(10, people=5)
    human = score_pictures(dict(enumerate(captions)), dict(enumerate(references))).human
    assert human is not None
    assert human["turns"] == 2


def test_pictures_with_one_reference_have_no_human_row() -> None:
    evaluation = score_pictures({"a": "a dog", "b": "a cat"}, {"a": ["a dog"], "b": ["the cat"]})
    assert evaluation.human is None
    assert evaluation.against_as_many is None
    assert [label for label, _ in evaluation.rows()] == ["captions", "floor, one caption"]
    mixed = score_pictures({"a": "a dog", "b": "a cat"}, {"a": ["a dog"], "b": ["the cat", "a cat", "cats", "one cat"]})
    assert mixed.human is not None
    assert (mixed.human["images"], mixed.human["references_each"]) == (1, "3")


def test_the_floor_is_a_reference_for_every_picture(
    corpus: tuple[dict[str, str], dict[str, list[str]]], evaluation: Evaluation
) -> None:
    _, references = corpus
    caption = evaluation.floor["caption"]
    assert caption in {" ".join(tokenise(text)) for those in references.values() for text in those}
    scores = score_captions([caption] * 60, list(references.values()))
    assert {metric: evaluation.floor[metric] for metric in METRICS} == pytest.approx(
        {metric: scores[metric] for metric in METRICS}
    )


def test_warns_of_one_caption_for_all(corpus: tuple[dict[str, str], dict[str, list[str]]]) -> None:
    captions, references = corpus
    floor = score_pictures(captions, references).floor["caption"]
    distinct, floor_warning = score_pictures(dict.fromkeys(captions, floor), references).warnings()
    assert "only 1 distinct caption for 60 pictures" in distinct
    assert "within 2 points of" in floor_warning
    assert repr(floor) in floor_warning
    worse = score_pictures({name: f"fish number {name}" for name in captions}, references).warnings()
    assert len(worse) == 1
    assert "below" in worse[0]


def test_good_captions_get_no_warning(corpus: tuple[dict[str, str], dict[str, list[str]]]) -> None:
    _, references = corpus
    assert score_pictures({name: those[0] for name, those in references.items()}, references).warnings() == []


def test_warns_of_distinct_captions_below_a_fifth() -> None:
    references = {f"{number}": [f"word{number} in a long line of many words"] for number in range(20)}

    def warnings_with(distinct: int) -> int:
        captions = {name: references[str(int(name) % distinct)][0] for name in references}
        return sum("distinct" in line for line in score_pictures(captions, references).warnings())

    assert warnings_with(4) == 0
    assert warnings_with(3) == 1


def test_warns_of_marks_left_in() -> None:
    evaluation = score_pictures({"a": "a dog <end>", "b": "a cat"}, {"a": ["a dog", "dogs"], "b": ["a cat"]})
    assert any("1 caption with marks such as <end>" in line for line in evaluation.warnings())


def test_json_holds_the_scores_and_what_compare_needs(evaluation: Evaluation) -> None:
    content = json.loads(evaluation.to_json())
    assert {"bleu_1", "bleu_4", "rouge_l", "cider", "images", "references", "distinct", "floor", "human"} <= set(
        content
    )
    assert content["bleu_4"] == evaluation.scores["bleu_4"]
    assert content["floor"]["bleu_4"] == evaluation.floor["bleu_4"]
    assert content["human"]["bleu_4"] == evaluation.human["bleu_4"]
    assert [picture["name"] for picture in content["pictures"]] == sorted(p.name for p in evaluation.pictures)
    assert content["pictures"][3]["cider"] == evaluation.pictures[3].cider
    assert "references" not in content["pictures"][3], "other people's captions are not passed on"


def test_the_table_is_markdown_with_aligned_columns(evaluation: Evaluation) -> None:
    lines = evaluation.table().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split("|")[2].strip() == "BLEU-1"
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "captions",
        "captions, 2 references",
        "human, 2 references",
        "floor, one caption",
    ]
    assert lines[2].split("|")[5].strip() == f"{evaluation.scores['bleu_4']:.1f}"
    assert markdown_table(["", "a"], [["x", "1"]]) == "|   | a |\n|---|--:|\n| x | 1 |"


def test_the_recipe_says_how(evaluation: Evaluation) -> None:
    said = dataclasses.replace(evaluation, problems={"no_caption": ["a.jpg", "b.jpg"]})
    line = recipe(said, {"decoding": "greedy"}, ["nltk"])
    parts = dict(part.split(":", 1) for part in line.split("|"))
    assert parts["images"] == "60"
    assert parts["refs"] == "3"
    assert parts["decoding"] == "greedy"
    assert parts["no_caption"] == "2"
    assert parts["nltk"][0].isdigit()
    assert {"metrics", "tok", "cider_df", "refs_sha"} <= set(parts)


def test_the_recipe_changes_with_the_references(corpus: tuple[dict[str, str], dict[str, list[str]]]) -> None:
    captions, references = corpus
    other = {**references, "00.jpg": [*references["00.jpg"], "Another one"]}
    first, second = score_pictures(captions, references), score_pictures(captions, other)
    assert first.references_sha256 != second.references_sha256
    assert "|refs:3|" in recipe(first, {}, [])
    assert "|refs:3-4|" in recipe(second, {}, [])


CHINESE = {"a.jpg": ["一只黑狗在雪地里奔跑。", "黑狗在跑"], "b.jpg": ["一个男人坐着T恤 shirt", "一个男人"]}


def test_characters_are_compared_where_words_have_no_spaces() -> None:
    captions = {"a.jpg": "一只黑狗在雪地里跑！", "b.jpg": "一个男人坐着"}
    found = score_pictures(captions, CHINESE, "character")
    hypotheses = [list("一只黑狗在雪地里跑"), list("一个男人坐着")]
    references = [
        [list("一只黑狗在雪地里奔跑"), list("黑狗在跑")],
        [[*"一个男人坐着t恤shirt"], list("一个男人")],
    ]
    expected = bleu(hypotheses, references)
    assert [found.scores[f"bleu_{n}"] for n in range(1, 5)] == pytest.approx(expected)
    assert score_captions(list(captions.values()), list(CHINESE.values()), "character")["bleu_4"] == expected[3]
    assert score_pictures(captions, CHINESE).scores["bleu_1"] == 0, "as words, these are whole sentences"


def test_the_kind_of_tokens_is_told(evaluation: Evaluation) -> None:
    chinese = score_pictures({name: those[0] for name, those in CHINESE.items()}, CHINESE, "character")
    assert "|tok:captioner-character|" in recipe(chinese, {}, [])
    assert "|tok:captioner-ptb-lower-nopunct|" in recipe(evaluation, {}, [])
    assert json.loads(chinese.to_json())["tokens"] == "character"
    assert json.loads(evaluation.to_json())["tokens"] == "word"


def test_a_floor_of_characters_reads_as_one_text() -> None:
    references = {f"{number}": ["一只狗在跑 ok go"] for number in range(3)}
    assert (
        score_pictures(dict.fromkeys(references, "狗"), references, "character").floor["caption"] == "一只狗在跑ok go"
    )
