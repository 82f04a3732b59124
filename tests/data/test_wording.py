"""From what stands for captions in a file to captions."""

from __future__ import annotations

from typing import Any

import pytest

from captioner.data.readers.wording import hold_words, sentence, texts_of, without_marks
from captioner.errors import DataError

BOTH = ["A dog, 'big'", 'it said "no"']


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("A dog", ["A dog"]),
        (None, [""]),
        ([], [""]),
        (7, None),
        ([1, 2], None),
        (BOTH, BOTH),
        (r"""["A dog, 'big'", "it said \"no\""]""", BOTH),
        (repr(BOTH), BOTH),
        ("[\"A dog, 'big'\"\n 'it said \"no\"']", BOTH),
        ("array([\"A dog, 'big'\",\n 'it said \"no\"'], dtype=object)", BOTH),
        ("['one']", ["one"]),
        ([["two", "dogs"], ["a", "cat"]], ["two dogs", "a cat"]),
        ("[['two', 'dogs'], ['a', 'cat']]", ["two dogs", "a cat"]),
        ([{"raw": "A dog.", "tokens": ["a", "dog"]}, {"tokens": ["a", "cat"]}], ["A dog.", "a cat"]),
        ("[sic] a dog", ["[sic] a dog"]),
        ("(a dog)", ["(a dog)"]),
        ("[1, 2]", ["[1, 2]"]),
    ],
)
def test_what_stands_for_captions(value: Any, expected: list[str] | None) -> None:
    assert texts_of(value) == expected


@pytest.mark.parametrize("text", ["['a dog', 'a", "['a dog';'a cat']", "[['a dog'"])
def test_a_list_that_cannot_be_read_is_no_caption(text: str) -> None:
    with pytest.raises(DataError, match="a list of captions that cannot be read"):
        texts_of(text)


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([["two", "dogs", "."], ["a", "cat", "sits"]], True),
        ([["two", "dogs", "."], ["A cat sits", "one", "two"]], False),
        ([["dog", "cat"], ["hen", "cow"]], False),
        ([["dog"], ["cat"], ["hen"]], False),
        ([["one", "", "two"]], False),
        ([["一个", "女人", "在", "海里"]], True),
        ([["一个女人躺在海水里", "女人躺在水里", "海边有一个女人"]], False),
        ([], False),
    ],
)
def test_lists_of_words_are_told_from_lists_of_captions(lists: list[list[str]], expected: bool) -> None:
    assert hold_words(lists) is expected


def test_a_sentence_has_spaces_where_its_script_has() -> None:
    assert sentence(["two", "dogs", "."]) == "two dogs ."
    assert sentence(["一个", "女人"]) == "一个女人"


@pytest.mark.parametrize(
    "text",
    [
        *("<start> A dog . <end>", "startseq A dog . endseq", "<s>A dog .</s>", "[CLS] A dog . [SEP] [PAD] [PAD]"),
        *("<SOS> A dog . <EOS>", "<|startoftext|>A dog .<|endoftext|>", "<bos> A dog . <eos> <pad>", "A dog . <end>"),
        *("<start_of_text> A dog . <end_of_text>", "A dog ."),
        *("start_seq A dog . end_seq", "<start>A dog .<end>."),
    ],
)
def test_marks_are_dropped(text: str) -> None:
    assert without_marks(text) == "A dog ."


@pytest.mark.parametrize("text", ["The start of a race , the end", "A <b> sign <unk>", " spaces stay ", "endsequence"])
def test_words_are_no_marks(text: str) -> None:
    assert without_marks(text) == text
