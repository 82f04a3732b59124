"""The language of a vocabulary is found by its function words."""

from __future__ import annotations

import pytest

from captioner.languages import CHINESE, ENGLISH, GERMAN, Language, language_of
from captioner.network.header import models, read_header


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (sorted(ENGLISH.function_words)[::2], "English"),
        (sorted(GERMAN.function_words)[::2], "German"),
        (sorted(CHINESE.function_words)[::2], "Chinese"),
        (["un", "chien", "court", "dans", "l'", "herbe"], ""),
        ([], ""),
    ],
)
def test_a_language_is_known_by_many_of_its_function_words(words: list[str], expected: str) -> None:
    assert language_of(words).name == expected


def test_shipped_checkpoints_speak_a_known_language() -> None:
    found = {model.name: language_of(read_header(model.path).vocabulary.words).name for model in models()}
    assert found == {"flickr8k": "English", "flickr8k-de": "German", "flickr8k-zh": "Chinese"}


@pytest.mark.parametrize("language", [ENGLISH, CHINESE])
def test_no_neutral_word_tells_the_sex(language: Language) -> None:
    assert language.neutral
    for instead in language.neutral.values():
        assert not set(instead) & language.neutral.keys()
