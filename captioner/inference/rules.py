"""The rules of decoding: one object, built once from options, vocabulary and prompt.

Rules hold token ids and numbers. `Rules.of` is the only place where decoding meets text.
Shapes: R rows (one per unfinished caption), t tokens written so far, V vocabulary.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from captioner.errors import OptionError, counted
from captioner.languages import Language, language_of
from captioner.options import DecodeOptions
from captioner.vocab import END, PAD, SPECIAL_TOKENS, START, UNK, Vocabulary

Floats: TypeAlias = NDArray[np.floating[Any]]
Ids: TypeAlias = NDArray[np.int64]

MOST_REQUIRED = 3  # words; each doubles the number of beams
SAID_AGAIN = 0.1  # the most that a picture speaks for a word which the caption has said
CONJUNCTIONS = ("and", "or")
STUTTER = 4  # the number of words after a conjunction that must differ from the word before it
_FEW = 16  # so many of the largest values are found faster one after the other than by sorting


@dataclass(frozen=True)
class Rules:
    """How captions are written: the options, and the token ids that apply them to one vocabulary.

    Every caption begins with the tokens of `prompt`. Its length limits and its rules include them.
    Raises OptionError when the prompt leaves no room below `max_length`, ValueError for special tokens in it.
    """

    options: DecodeOptions
    prompt: tuple[int, ...] = ()
    conjunctions: tuple[int, ...] = ()  # around which captions must not stutter, unless options.allow_stutter
    avoided: tuple[tuple[int, ...], ...] = ()  # sequences of tokens that must not be written
    required: tuple[int, ...] = ()  # tokens that every caption must have
    function_words: tuple[int, ...] | None = None  # which may come again; None: any word may
    merged: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()  # tokens, and those of which one stands for them

    def __post_init__(self) -> None:
        if not {PAD, START, END, UNK}.isdisjoint(self.prompt):
            raise ValueError(f"a prompt cannot hold <pad>, <start>, <end> or <unk>: {list(self.prompt)}")
        length, most = len(self.prompt), self.options.max_length
        if length >= most:
            raise OptionError(
                f"the prompt is {counted(length, 'word')} long and max_length {most} counts them: "
                f"set max_length (--max-length) to at least {length + 1}, or shorten the prompt"
            )
        if length + len(set(self.required) - set(self.prompt)) > most:
            raise OptionError(f"require: the words do not fit into max_length {most}: raise that (--max-length)")

    @classmethod
    def of(cls, options: DecodeOptions, vocabulary: Vocabulary, prompt: str = "") -> Rules:
        """The rules for a model that writes the words of `vocabulary`; every caption begins with the text `prompt`.

        Raises OptionError for a prompt of punctuation only, with words that the model does not know, or so long that
        no other word fits.
        """
        words, ids = vocabulary.tokenise(prompt), vocabulary.encode(prompt)
        if prompt and not words:
            raise OptionError(f"the prompt {prompt!r} holds no word: give some, or leave the prompt out")
        unknown = dict.fromkeys(word for word, token in zip(words, ids, strict=True) if token == UNK)
        if unknown:
            named = ", ".join(_with_suggestions(word, vocabulary) for word in unknown)
            raise OptionError(f"the model does not know every {vocabulary.tokens} of the prompt: not {named}")
        token = vocabulary.ids
        conjunctions = tuple(sorted(token[word] for word in CONJUNCTIONS if word in token))
        avoided = [
            tuple(vocabulary.encode(word)) for word in re.split("[,，、]", options.avoid) if vocabulary.tokenise(word)
        ]
        avoided = [sequence for sequence in avoided if UNK not in sequence]  # which is never written anyway
        language, functions = language_of(vocabulary.words), None
        if language.function_words and vocabulary.tokens == "word":
            functions = tuple(sorted(token[word] for word in language.function_words if word in token))
        required, merged = _required(options, vocabulary), _neutral(options, language, vocabulary)
        never = {token for sequence in avoided for token in sequence[-1:] if len(sequence) == 1}
        never |= {token for gone, _ in merged for token in gone}
        if both := [vocabulary.words[token] for token in required if token in never]:
            why = "avoid (--avoid) or people neutral (--people) forbids"
            raise OptionError(f"require: {why} {', '.join(map(repr, both))}: leave that out of one of them")
        return cls(options, tuple(ids), conjunctions, tuple(avoided), required, functions, merged)

    @property
    def rows(self) -> int:
        """How many captions of a picture are decoded side by side."""
        return self.options.beam_size if self.options.strategy == "beam" else self.options.num_captions

    def uniforms(self) -> NDArray[np.float64]:
        """All the random numbers that sampling needs, from the seed: (N, T) in [0, 1), a row for each caption.

        Every picture gets the same, so its captions do not depend on the batch it is in. Rows do not depend on N.
        """
        shape = self.options.num_captions, self.options.max_length
        if self.options.strategy != "sample":  # nothing is drawn, and making the generator takes longer than a word
            return np.zeros(shape)
        # 53 bits of the Mersenne Twister each, as torch's generator took them when decoding was torch's: the same seed
        # still draws the same captions.
        halves = np.random.RandomState(self.options.seed % 2**32).randint(0, 2**32, (*shape, 2), dtype=np.uint64)
        return ((halves[..., 0] << 32 | halves[..., 1]) & (2**53 - 1)) / 2.0**53

    def weigh(self, logprobs: Floats, evidence: Floats, written: Ids) -> Floats:
        """Log-probabilities of the next word (R, V), to which the evidence for it (R, V) is added.

        For words among the tokens `written` (R, t), less evidence is left. Otherwise, "a crowd in front of a crowd"
        would be likely: the picture speaks for the second one, too.
        """
        found: Floats = logprobs + evidence
        if self.function_words is not None:
            places = np.arange(len(written))[:, None], written
            now, most = evidence[places], math.log(SAID_AGAIN) * (self.options.evidence or 0.0)
            again = _among(written, self.function_words)
            found[places] = logprobs[places] + np.where(again, now, np.minimum(now, most))
        return found

    def merge(self, logprobs: Floats) -> Floats:
        """Log-probabilities (R, V) in which words that tell the sex of people are no choice: their probabilities are
        added to that of the word which stands for them. Of several, it is the one that is the most likely there.
        """
        if not self.merged:
            return logprobs
        rows, result = np.arange(len(logprobs)), np.array(logprobs)
        for gone, instead in self.merged:
            chosen = np.array(instead)[logprobs[:, instead].argmax(1)]
            given = np.logaddexp.reduce(logprobs[:, gone], axis=1)
            result[rows, chosen] = np.logaddexp(result[rows, chosen], given)
            result[:, gone] = -np.inf
        return result

    def scores(self, logprobs: Floats, written: Ids) -> Floats:
        """Scores of the next token, (R, V): the log-probabilities (R, V), with -inf where a rule forbids the token.

        `written` are the tokens so far, (R, t), without `<start>`. `<pad>`, `<start>` and `<unk>` are never written.
        Where the rules forbid every token, `<end>` is allowed.
        """
        scores = np.array(logprobs)
        scores[:, [PAD, START, UNK]] = -np.inf
        self._forbid_stutter(scores, written)
        self._forbid_repetition(scores, written)
        for *before, last in self.avoided:
            t = len(before)
            if written.shape[1] >= t:
                begun = (written[:, written.shape[1] - t :] == np.array(before, dtype=np.int64)).all(-1)
                scores[begun, last] = -np.inf
        end = scores[:, END].copy()
        if written.shape[1] < self.options.min_length:
            scores[:, END] = -np.inf
        stuck = np.isneginf(scores.max(-1))
        # Finite even where the decoder itself rules out `<end>`: something has to be written.
        scores[stuck, END] = np.maximum(end[stuck], np.finfo(scores.dtype).min)
        return scores

    def _forbid_stutter(self, scores: Floats, written: Ids) -> None:
        """Forbid, in place, the word before a conjunction for the next few words after it.

        Models like to write "a red jacket and a red jacket". People hardly ever do.
        """
        t = written.shape[1]
        if self.options.allow_stutter or not self.conjunctions or t < 2:
            return
        first = max(1, t - STUTTER)
        joins = _among(written[:, first:], self.conjunctions)
        scores[np.arange(len(scores))[:, None], np.where(joins, written[:, first - 1 : -1], PAD)] = -np.inf

    def _forbid_repetition(self, scores: Floats, written: Ids) -> None:
        """Forbid, in place, the tokens that would repeat a sequence of `no_repeat_ngram` tokens."""
        n, t = self.options.no_repeat_ngram, written.shape[1]
        if n and t >= n:
            windows = written[:, np.arange(t - n + 1)[:, None] + np.arange(n)]  # (R, t - n + 1, n)
            # Windows that begin with the last n - 1 tokens written: repeating their last token would repeat them.
            repeats = (windows[:, :, :-1] == written[:, None, t - n + 1 :]).all(-1)
            scores[np.arange(len(scores))[:, None], np.where(repeats, windows[:, :, -1], PAD)] = -np.inf

    def next_token(self, scores: Floats, uniform: NDArray[np.float64]) -> Ids:
        """The next token of each row, (R,), from `scores` (R, V).

        Sampling takes the word at which the cumulative distribution passes the row's number in `uniform`, (R,) in
        [0, 1), after temperature, top-k and top-p (Holtzman et al. 2020, "The curious case of neural text
        degeneration"). Other strategies take the most likely word.
        """
        options = self.options
        if options.strategy != "sample" or options.top_k == 1:
            return np.asarray(scores.argmax(-1))  # the first of equal scores
        # Double precision, so that a sum over thousands of small probabilities still ends at 1. Words only have to be
        # ranked where some of them are left out.
        ranked, ids = scores.astype(np.float64), np.broadcast_to(np.arange(scores.shape[-1]), scores.shape)
        if options.top_k or options.top_p < 1.0:
            ids = np.argsort(-ranked, axis=-1, kind="stable")[:, : options.top_k or None]
            ranked = np.take_along_axis(ranked, ids, 1)
        probabilities = np.exp((ranked - ranked.max(-1, keepdims=True)) / options.temperature)
        probabilities /= probabilities.sum(-1, keepdims=True)
        if options.top_p < 1.0:
            before = probabilities.cumsum(-1) - probabilities
            probabilities[before >= options.top_p] = 0.0  # the first word always stays
        cumulative = probabilities.cumsum(-1)
        total = cumulative[:, -1]
        # Rounding must not take the product up to the total itself, because no word would pass that.
        target = np.minimum(uniform * total, np.nextafter(total, 0.0))
        rank = (cumulative <= target[:, None]).sum(-1)
        return np.asarray(np.take_along_axis(ids, rank[:, None], 1)[:, 0])


def log_softmax(logits: Floats) -> Floats:
    """Logits (..., V) to log-probabilities (..., V), in the same precision."""
    shifted = np.asarray(logits - logits.max(-1, keepdims=True))
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


def top(values: Floats, k: int) -> tuple[Floats, Ids]:
    """The k largest values of each row of (R, N), the largest first, and their places, (R, k) each.

    What is -inf may come with the place of another.
    """
    if k > _FEW:
        places = np.argpartition(values, -k, 1)[:, -k:] if k < values.shape[1] else np.argsort(values, 1)
        found = np.take_along_axis(values, places, 1)
        order = np.argsort(-found, 1, kind="stable")
        return np.take_along_axis(found, order, 1), np.take_along_axis(places, order, 1)
    left, rows = values.copy(), np.arange(len(values))
    best = np.empty((k, len(values)), dtype=values.dtype)
    where = np.empty((k, len(values)), dtype=np.int64)
    for place in range(k):
        where[place] = left.argmax(1)
        best[place] = left[rows, where[place]]
        left[rows, where[place]] = -np.inf
    return best.T, where.T


def _required(options: DecodeOptions, vocabulary: Vocabulary) -> tuple[int, ...]:
    """The tokens of the required words. Raises OptionError for too many, and for words that are not known."""
    words = vocabulary.tokenise(options.require)
    unknown = [_with_suggestions(word, vocabulary) for word in words if word not in vocabulary.ids]
    if unknown:
        raise OptionError(f"require: the model does not know {', '.join(unknown)}: leave that out")
    if len(words) > MOST_REQUIRED:
        raise OptionError(f"require: {len(words)} {vocabulary.tokens}s are too many: give {MOST_REQUIRED} at most")
    return tuple(dict.fromkeys(vocabulary.encode(options.require)))


def _neutral(
    options: DecodeOptions, language: Language, vocabulary: Vocabulary
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """What `Rules.merged` holds. Raises OptionError where the language of the vocabulary has no neutral words."""
    if options.people != "neutral":
        return ()
    token = vocabulary.ids
    groups: dict[tuple[int, ...], list[int]] = {}
    for word, instead in language.neutral.items():
        targets = tuple(token[other] for other in instead if other in token)
        if word in token and targets:
            groups.setdefault(targets, []).append(token[word])
    if not groups:
        raise OptionError("people neutral: this model's language has no neutral words: leave people (--people) out")
    return tuple((tuple(gone), targets) for targets, gone in groups.items())


def _with_suggestions(word: str, vocabulary: Vocabulary) -> str:
    near = get_close_matches(word, vocabulary.words[len(SPECIAL_TOKENS) :])
    return repr(word) + (f" (did you mean {' or '.join(map(repr, near))}?)" if near else "")


def _among(written: Ids, known: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which of the tokens, of any shape, are known. `np.isin` would sort them each time."""
    found: NDArray[np.bool_] = (written[..., None] == np.array(known)).any(-1)
    return found
