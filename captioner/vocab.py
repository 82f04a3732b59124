"""Text to token ids and back.

There are two kinds of tokens: words, for scripts with spaces between words, and characters, for scripts without.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

from captioner.options import TOKEN_KINDS

PAD, START, END, UNK = range(4)
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")

# English clitics are separate tokens, as in the Penn Treebank and in Flickr8k ("man 's"): "man's" and "man 's" are the
# same two tokens.
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|re|ve|ll|d|m))\b")
# Python's \w leaves out combining marks, among them the vowel signs of Hindi, Thai and Arabic. Words keep them.
_MARKS = "".join(
    chr(code) for code in (*range(0x300, 0x1E00), *range(0xA800, 0xAC00)) if unicodedata.category(chr(code))[0] == "M"
)
_WORD = rf"\w[\w{_MARKS}]*"
_TOKEN = re.compile(rf"n't\b|'(?:s|re|ve|ll|d|m)\b|{_WORD}(?:[-'.&\u200c\u200d]{_WORD})*")  # or a zero-width joiner

# Scripts without spaces between words: Chinese, Japanese, Thai, Lao, Tibetan, Burmese, Khmer.
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_LETTER = re.compile(f"[{_UNSPACED}]")
# A character with its marks, or a space between two characters of scripts with spaces.
_CHARACTER = re.compile(rf"\w[{_MARKS}]*|(?<=[^\W{_UNSPACED}]) (?=[^\W{_UNSPACED}])")


def tokenise(text: str, tokens: str = "word") -> list[str]:
    """Split a caption into lower-case words, or into characters, without punctuation.

    Punctuation inside a word stays ("t-shirt"). A space between two words of a script with spaces is a character, so
    that the sentence can be put together again. Training and evaluation use the same tokens. The result never contains
    special tokens: "<unk>" gives "unk".
    """
    words = _parts(_normalised(text).lower())
    return words if tokens == "word" else _CHARACTER.findall(" ".join(words))


def _parts(text: str) -> list[str]:
    return _TOKEN.findall(_CLITIC.sub(r" \1", text) if "'" in text else text)  # clitics take long to look for


def _normalised(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("’", "'")


def fitting_tokens(captions: Iterable[str]) -> str:
    """The kind of tokens that fits some captions: "character" where most letters are of scripts without spaces."""
    letters = [letter for caption in islice(captions, 1000) for letter in caption if letter.isalpha()]
    unspaced = sum(bool(_UNSPACED_LETTER.match(letter)) for letter in letters)
    return "character" if unspaced > len(letters) / 2 else "word"


def join_tokens(words: Sequence[str], tokens: str = "word") -> str:
    """The sentence for people: clitics are joined to their words, and the first letter is a capital."""
    text = ""
    for word in words:
        joined = tokens == "character" or not text or word.startswith("'") or word == "n't"
        text += word if joined else " " + word
    return text[:1].upper() + text[1:]


_MOSTLY = 0.7  # the share of its uses from which a spelling is that of the word, and not of a name like Pizza Hut


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that a decoder knows: `words[id]` is the text of a token. The first four are special.

    `tokens` is the kind of tokens, "word" or "character". Words are in lower case; `spellings` has those that people
    mostly write in another way, such as "Frisbee" and all German nouns.
    Raises ValueError when the special tokens are not in their places or a word occurs twice.
    """

    words: tuple[str, ...]
    tokens: str = "word"
    spellings: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.tokens not in TOKEN_KINDS:
            raise ValueError(f"tokens must be {' or '.join(TOKEN_KINDS)}, not {self.tokens!r}")
        if self.words[:4] != SPECIAL_TOKENS:
            raise ValueError(f"the vocabulary must begin with {' '.join(SPECIAL_TOKENS)}")
        if len(self.ids) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"the vocabulary holds the word {twice!r} twice")

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def build(cls, captions: Iterable[str], minimum_count: int = 1, tokens: str = "word") -> Vocabulary:
        """The words that occur at least `minimum_count` times, the most frequent first."""
        counts: Counter[str] = Counter()
        small: Counter[str] = Counter()  # how often a word has no capital; other forms are in `written`
        written: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for caption in captions:
            words = tokenise(caption, tokens)
            counts.update(words)
            # In most captions only the first letter may be a capital: these need not be split twice.
            if tokens == "word" and not (caption.isascii() and caption[1:].islower()):
                for word, form in _forms(caption, words):
                    written[word][form] += 1
            else:
                small.update(words[1:])
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        kept = [word for word in ranked if counts[word] >= minimum_count]
        spellings = {}
        for word in kept:
            forms = written[word] + Counter({word: small[word]})
            form, number = max(forms.items(), key=lambda item: item[::-1], default=(word, 0))
            if form != word and number >= _MOSTLY * forms.total():
                spellings[word] = form
        return cls((*SPECIAL_TOKENS, *kept), tokens, spellings)

    def tokenise(self, text: str) -> list[str]:
        """Split a caption into tokens of this vocabulary's kind."""
        return tokenise(text, self.tokens)

    def encode(self, text: str) -> list[int]:
        """The ids of a caption's tokens, without `<start>` and `<end>`. Unknown words become `<unk>`."""
        id_of = self.ids.get
        return [id_of(word, UNK) for word in self.tokenise(text)]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words of token ids, without `<pad>`, `<start>` and `<end>`."""
        return [self.words[index] for index in ids if index not in (PAD, START, END)]

    def text(self, ids: Iterable[int]) -> str:
        """The sentence of token ids, for people."""
        return join_tokens([self.spellings.get(word, word) for word in self.decode(ids)], self.tokens)


def _forms(caption: str, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The words of a caption and how they are written there; not the first, which has a capital for another reason."""
    forms = _parts(_normalised(caption))
    if [form.lower() for form in forms] == words and not caption.isupper():
        yield from zip(words[1:], forms[1:], strict=True)
