"""Support: the share of a caption's content words that the references have."""

from __future__ import annotations

import pytest

from captioner.evaluation.support import TWO_THIRDS, Support
from captioner.languages import CHINESE, ENGLISH, GERMAN, Language

DOG = ["a brown dog is running through the grass", "the dogs run on a field"]


def scale(language: Language, *references: str) -> tuple[Support, list[list[str]]]:
    """Support in a language, and the references of one picture."""
    split = list if language is CHINESE else str.split
    texts = [split(text) for text in references]
    return Support([[*texts, sorted(language.function_words)]]), texts


@pytest.mark.parametrize(
    ("caption", "counts"),
    [
        ("a dog runs in the grass", (3, 3)),  # "runs" and "running" have one stem
        ("two brown cats", (1, 2)),
        ("a man with a hat", (0, 2)),
        ("in the", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_words_are_supported_by_any_reference_in_any_form(caption: str, counts: tuple[int, int]) -> None:
    support, references = scale(ENGLISH, *DOG)
    assert support.counts(caption.split(), references) == counts


@pytest.mark.parametrize(
    ("language", "caption", "reference", "counts"),
    [
        (GERMAN, "zwei hunde laufen", "ein hund läuft über die wiese", (1, 2)),
        (CHINESE, list("一只狗在草地上"), "狗在草上跑", (2, 2)),
    ],
)
def test_other_languages(language: Language, caption: str | list[str], reference: str, counts: tuple[int, int]) -> None:
    support, references = scale(language, reference)
    assert support.counts(caption.split() if isinstance(caption, str) else caption, references) == counts


def test_of_an_unknown_language_all_words_count() -> None:
    support = Support([[["un", "chien", "court"]]])
    assert support.counts(["un", "chat"], [["un", "chien", "court"]]) == (1, 2)


def test_two_thirds_make_a_caption_right() -> None:
    support, references = scale(ENGLISH, *DOG)
    shares = {"a brown dog jumps": True, "a dog and a cat": False, "a dog": True, "": False}
    assert {caption: support.share(caption.split(), references) >= TWO_THIRDS for caption in shares} == shares
