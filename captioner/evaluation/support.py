"""Support: how much of what a caption says stands in the references, too.

Of the words of a caption that are no function words, those are supported whose stem is in at least one reference. A
caption counts as right when two thirds of them are. Anyone can apply that to any data set, without a reader;
docs/evaluation.md tells how it agrees with a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from captioner.evaluation.metrics import Words
from captioner.languages import ENGLISH, GERMAN, Language, language_of

TWO_THIRDS = 2 / 3 - 1e-9  # the share of supported words from which a caption counts as right


class Support:
    """Support in the language of some references, as lists of words or characters."""

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        self.language = language_of({word for those in references for words in those for word in words})
        self._stem = _stemmer(self.language)

    def counts(self, caption: Words, references: Sequence[Words]) -> tuple[int, int]:
        """How many words of a caption are supported by the references of its picture, and how many there are."""
        there = {self._stem(word) for words in references for word in words}
        content = [self._stem(word) for word in caption if word not in self.language.function_words]
        return sum(stem in there for stem in content), len(content)

    def share(self, caption: Words, references: Sequence[Words]) -> float:
        """The share of a caption's words that are supported, 0 to 1; a caption that says nothing has 0."""
        supported, words = self.counts(caption, references)
        return supported / max(1, words)


def _stemmer(language: Language) -> Callable[[str], str]:
    """What makes "dogs" and "dog" one: Porter's stemmer for English, Snowball's for German."""
    if language not in (ENGLISH, GERMAN):
        return str
    from nltk.stem import PorterStemmer, SnowballStemmer  # imports much, for which other commands need not wait

    stemmer: Any = PorterStemmer() if language is ENGLISH else SnowballStemmer("german")
    return lru_cache(100_000)(stemmer.stem)
