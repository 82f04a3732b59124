"""Text to ids and back: normalise, tokenise, Vocabulary."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

PAD, START, END, UNK = range(4)
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")

# English clitics are tokens of their own, as in the Penn Treebank and as Flickr8k writes them ("man 's"), so
# that "man's" and "man 's" are the same two tokens.
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|re|ve|ll|d|m))\b")
# Python's \w leaves out combining marks, the vowel signs of Hindi, Thai or Arabic, which would tear words apart.
_MARKS = "".join(
    chr(code) for code in (*range(0x300, 0x1E00), *range(0xA800, 0xAC00)) if unicodedata.category(chr(code))[0] == "M"
)
_WORD = rf"\w[\w{_MARKS}]*"
_TOKEN = re.compile(rf"n't\b|'(?:s|re|ve|ll|d|m)\b|{_WORD}(?:[-'.&\u200c\u200d]{_WORD})*")  # or a zero-width joiner


def tokenise(text: str) -> list[str]:
    """Split a caption into lower-case words; punctuation is dropped, except inside a word ("t-shirt").

    The same words serve training and evaluation. Special tokens cannot come out of it: "<unk>" gives "unk".
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    return _TOKEN.findall(_CLITIC.sub(r" \1", text))


def join_words(words: Sequence[str]) -> str:
    """A sentence as a person would read it: clitics joined to their word, first letter capital."""
    text = ""
    for word in words:
        joined = not text or word.startswith("'") or word == "n't"
        text += word if joined else " " + word
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Vocabulary:
    """The words that a decoder knows; `words[id]` is the text of a token, the first four are special.

    Raises ValueError when the special tokens are not in their places or a word occurs twice.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[:4] != SPECIAL_TOKENS:
            raise ValueError(f"the vocabulary must begin with {' '.join(SPECIAL_TOKENS)}")
        if len(self._ids) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"the vocabulary holds the word {twice!r} twice")

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def build(cls, captions: Iterable[str], minimum_count: int = 1) -> Vocabulary:
        """The words that occur at least `minimum_count` times, the most frequent first."""
        counts = Counter(word for caption in captions for word in tokenise(caption))
        kept = [word for word, count in counts.items() if count >= minimum_count]
        kept.sort(key=lambda word: (-counts[word], word))
        return cls(SPECIAL_TOKENS + tuple(kept))

    def encode(self, text: str) -> list[int]:
        """The ids of a caption's words, without `<start>` and `<end>`; unknown words become `<unk>`."""
        return [self._ids.get(word, UNK) for word in tokenise(text)]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words of token ids; `<pad>`, `<start>` and `<end>` have none and are left out."""
        return [self.words[index] for index in ids if index not in (PAD, START, END)]

    def text(self, ids: Iterable[int]) -> str:
        """The sentence of token ids, as a person would read it."""
        return join_words(self.decode(ids))
