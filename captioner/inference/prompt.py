"""The given beginning of a caption: from what a person typed to token ids."""

from __future__ import annotations

from difflib import get_close_matches

from captioner.errors import OptionError
from captioner.inference.decoding import check_prompt
from captioner.options import DecodeOptions
from captioner.vocab import SPECIAL_TOKENS, UNK, Vocabulary


def prompt_ids(vocabulary: Vocabulary, prompt: str, options: DecodeOptions) -> list[int]:
    """The token ids of a prompt, none for an empty one.

    Raises OptionError for words outside the vocabulary and for a prompt of punctuation only, OptionError for one that
    leaves no room below `max_length`.
    """
    words, ids = vocabulary.tokenise(prompt), vocabulary.encode(prompt)
    if prompt and not words:
        raise OptionError(f"the prompt {prompt!r} holds no word: give some, or leave the prompt out")
    unknown = dict.fromkeys(word for word, index in zip(words, ids, strict=True) if index == UNK)
    if unknown:
        named = ", ".join(_suggestion(word, vocabulary) for word in unknown)
        raise OptionError(f"the model does not know every {vocabulary.tokens} of the prompt: not {named}")
    check_prompt(ids, options)
    return ids


def _suggestion(word: str, vocabulary: Vocabulary) -> str:
    near = get_close_matches(word, vocabulary.words[len(SPECIAL_TOKENS) :])
    return repr(word) + (f" (did you mean {' or '.join(map(repr, near))}?)" if near else "")
