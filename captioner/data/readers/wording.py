"""From what stands for captions in a file to captions: lists, also those written as text, lists of words, and marks."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from captioner.errors import DataError
from captioner.vocab import fitting_tokens

_LITERAL = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
# What numpy prints for texts, without commas: ['a' "b"]. Python would take that for one text.
_NUMPY = re.compile(rf"\[\s*{_LITERAL}(?:\s+{_LITERAL})*\s*\]", re.DOTALL)
_ARRAY = re.compile(r"array\((.*?)(?:,\s*dtype=\w+)?\)", re.DOTALL)
_LIST_BEGINS = re.compile(r"""["\[(\s]*\[\s*['"]""")
# What training scripts put around captions: <start> ... <end>, startseq ... endseq, <s> ... </s>, [CLS] ... [SEP].
_MARK = (
    r"(?:<\|?/?(?:start|end|s|sos|eos|bos|pad|(?:start|begin|end)_?of_?(?:text|seq|sentence)|im_start|im_end)\|?>"
    r"|\[(?:cls|sep|pad|bos|eos|sos)\]|\b(?:start|end)_?seq\b)"
)
_MARKS = re.compile(rf"^(?:\s*{_MARK})+\s*|\s*(?:{_MARK}[\s.]*)+$", re.IGNORECASE)
# A byte in Windows-1252, and as the character of the same number where that code page has none.
_BYTES = {bytes([number]).decode("cp1252", "ignore") or chr(number): number for number in range(256)}
_LONGEST_WORD = 4  # characters of a word in a script without spaces; longer texts are sentences


def texts_of(value: Any) -> list[str] | None:
    """The captions that a value of JSON or a cell stands for; None if it is neither text nor a list of texts.

    Lists of words in a list are sentences. Raises DataError for a text that begins like a list and is none.
    """
    if value is None:
        return [""]
    if isinstance(value, str):
        return _printed_list(value) or [value]
    if isinstance(value, dict):  # a sentence of Karpathy's files
        value = next((value[key] for key in ("raw", "caption", "text", "tokens") if value.get(key)), 0)
        found = texts_of(value)
        return [sentence(found)] if found and isinstance(value, list) else found
    if not isinstance(value, list | tuple):
        return None
    texts: list[str] = []
    for item in value:
        found = [item] if isinstance(item, str) else texts_of(item)
        if found is None:
            return None
        texts += [sentence(found)] if isinstance(item, list | tuple) else found
    return texts or [""]


def _printed_list(text: str) -> list[str] | None:
    """The captions in a text such as "['A dog', 'Two men']"; None if the text is no list."""
    if "[" not in text:
        return None
    text = text.strip()
    if array := _ARRAY.fullmatch(text):
        text = array[1]
    if not _LIST_BEGINS.match(text):
        return None
    with suppress(ValueError, RecursionError):
        return texts_of(json.loads(text))
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        if _NUMPY.fullmatch(text):
            return [ast.literal_eval(literal) for literal in re.findall(_LITERAL, text, re.DOTALL)]
        return texts_of(ast.literal_eval(text))
    raise DataError(f"a list of captions that cannot be read: {text[:80]!r}")


def hold_words(lists: Sequence[Sequence[str]]) -> bool:
    """Whether lists of texts are lists of words, each of which makes up one caption."""
    many = [texts for texts in lists if len(texts) > 1]
    return sum(map(len, many)) >= 3 * len(many) > 0 and all(_is_word(text) for texts in many for text in texts)


def _is_word(text: str) -> bool:
    return len(text.split()) == 1 and (fitting_tokens([text]) == "word" or len(text.strip()) <= _LONGEST_WORD)


def sentence(words: Sequence[str]) -> str:
    """The sentence of the words, with spaces unless the script has none."""
    return ("" if fitting_tokens(words) == "character" else " ").join(words)


def without_marks(text: str) -> str:
    """The caption without marks such as <start> and <end> around it."""
    if "<" in text or "[" in text or "seq" in text.lower():  # the pattern takes long
        return _MARKS.sub("", text)
    return text


def misread(text: str) -> str | None:
    """The caption that was meant, if its UTF-8 was taken for Windows-1252 ("trÃ¤gt" for "trägt"); None otherwise."""
    if text.isascii():
        return None
    with suppress(KeyError, UnicodeDecodeError):
        return bytes(_BYTES[letter] for letter in text).decode()
    return None
