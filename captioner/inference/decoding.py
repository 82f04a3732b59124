"""From a decoder's logits to captions: greedy, sampled and beam decoding of a whole batch at once.

This module sees token ids and logits only, as NumPy arrays. It works with any decoder that has `step` and `pick`:
torch's, or one of an exported model.
Reported log-probabilities are always those of the decoder's full softmax at temperature 1: rules, temperature, top-k
and top-p change which word is chosen, but not the number that is reported for it.
Shapes: B pictures, N draws or K beams per picture, R = B * N rows, P tokens of a prompt, T steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from captioner.inference.constrained import Constrained
from captioner.inference.rules import Floats, Ids, Rules, log_softmax, top
from captioner.vocab import END, PAD, START

ROWS = 2048  # decoded together at most, where that can be chosen: each row takes tables as long as the vocabulary


class StepDecoder(Protocol):
    """What decoding needs of a decoder. What a state is, only the decoder knows: it has a row for each caption."""

    def step(self, tokens: Ids, state: Any) -> tuple[NDArray[np.float32], Any]:
        """(R,), state -> logits (R, V), state"""

    def pick(self, state: Any, rows: Ids) -> Any:
        """The rows of a state that are named, (M,), in that order; a row may be named several times."""


@dataclass(frozen=True)
class Hypothesis:
    """Token ids of one caption with the log-probability of each. `<end>` is the last where it was reached."""

    tokens: tuple[int, ...]
    token_logprobs: tuple[float, ...]

    @property
    def finished(self) -> bool:
        """Whether `<end>` was reached before the length limit."""
        return bool(self.tokens) and self.tokens[-1] == END

    @property
    def logprob(self) -> float:
        """Natural logarithm of the caption's probability, including `<end>` where it was reached."""
        return sum(self.token_logprobs)


# Called at each step of a beam with the K best continuations of each picture, the best first, (B, K) each: the place of
# what it continues in the step before, its new token, and the log-probability of the whole, -inf where there is none.
BeamWatcher: TypeAlias = Callable[[Ids, Ids, Floats], object]


def decode(
    decoder: StepDecoder,
    state: Any,
    pictures: int,
    rules: Rules,
    evidence: Floats | None = None,
    watch: BeamWatcher | None = None,
) -> list[list[Hypothesis]]:
    """Write `rules.options.num_captions` captions for each of B pictures, the best first.

    `state` is the decoder's before `<start>`, with a row for each picture.
    Draws are ranked by log-probability, hypotheses of a beam by log-probability / length^length_penalty.
    The probabilities of the prompt's tokens are the decoder's own, and part of the caption's. Only the ranking of a
    beam leaves them out: the decoder did not choose them, and unlikely ones, divided by the length, would favour long
    captions. `watch` sees the beam grow.

    `evidence` (B, V) are logarithms of how far the pictures speak for each word, as `WordPredictor.evidence` gives
    them. Words are then chosen, and hypotheses ranked, by the product of both probabilities, the evidence to the power
    of `rules.options.evidence`, divided by its sum over all words. The log-probabilities of hypotheses stay the
    decoder's own.
    """
    if not pictures:
        return []
    weight = rules.options.evidence
    evidence = weight * evidence if evidence is not None and weight else None
    begun = _begin(decoder, state, pictures, rules.prompt)
    # A beam of 1 is greedy decoding. Greedy decoding is faster, and resolves ties in the same way.
    if rules.required:
        return _constrained(decoder, begun, rules, evidence)
    if rules.options.strategy == "beam" and rules.options.beam_size > 1:
        return _beam(decoder, begun, rules, evidence, watch)
    return _independent(decoder, begun, rules, evidence)


class _Begun(NamedTuple):
    """What `<start>` and the prompt leave: the prompt's tokens and their log-probabilities, (B, P) each, and the logits
    (B, V) and the state after it.
    """

    written: Ids
    logprobs: Floats
    logits: Floats
    state: Any


def _begin(decoder: StepDecoder, state: Any, pictures: int, prompt: Sequence[int]) -> _Begun:
    """Read `<start>` and the prompt, once per picture."""
    written = np.tile(np.array(prompt, dtype=np.int64), (pictures, 1))
    logits, state = decoder.step(np.full(pictures, START, dtype=np.int64), state)
    logprobs = np.empty((pictures, 0), dtype=logits.dtype)
    for tokens in written.T:
        logprobs = np.concatenate([logprobs, np.take_along_axis(log_softmax(logits), tokens[:, None], 1)], 1)
        logits, state = decoder.step(np.ascontiguousarray(tokens), state)
    return _Begun(written, logprobs, logits, state)


def _weighed(logprobs: Floats, evidence: Floats | None, rules: Rules, written: Ids) -> Floats:
    """Log-probabilities of the next word after `written` (R, t), with the evidence for each word, both (R, V)."""
    if evidence is None:
        return rules.merge(logprobs)
    return rules.merge(log_softmax(rules.weigh(logprobs, evidence, written)))


def _independent(decoder: StepDecoder, begun: _Begun, rules: Rules, evidence: Floats | None) -> list[list[Hypothesis]]:
    """Greedy and sampled decoding: rows that know nothing of each other, some of a picture's draws at a time."""
    random, some = rules.uniforms(), max(1, ROWS // len(begun.written))
    parts = [random[place : place + some] for place in range(0, len(random), some)]
    drawn = [_draw(decoder, begun, rules, part, evidence) for part in parts]
    # Sorting is stable, so equal draws keep their order.
    return [sorted(chain.from_iterable(own), key=lambda h: -h.logprob) for own in zip(*drawn, strict=True)]


def _draw(
    decoder: StepDecoder, begun: _Begun, rules: Rules, uniform: NDArray[np.float64], evidence: Floats | None
) -> list[list[Hypothesis]]:
    """Continue what `_begin` returned, n times per picture, with random numbers (n, T) for those who need them."""
    n, pictures = len(uniform), len(begun.written)
    random = np.tile(uniform, (pictures, 1))
    written, logprobs, logits = begun.written.repeat(n, 0), begun.logprobs.repeat(n, 0), begun.logits.repeat(n, 0)
    state = decoder.pick(begun.state, np.arange(pictures).repeat(n))
    going = np.arange(len(written))  # the rows without an `<end>`; others cost nothing
    evidence = evidence.repeat(n, 0) if evidence is not None else None
    for t in range(written.shape[1], rules.options.max_length):
        full, so_far = log_softmax(logits), written[going]
        # What is added to all words of a row changes neither the likeliest nor the drawn one: no need to divide again.
        weighed = rules.merge(full if evidence is None else rules.weigh(full, evidence, so_far))
        tokens = rules.next_token(rules.scores(weighed, so_far), random[going, t])
        written, logprobs = _pad(written), _pad(logprobs)
        written[going, t], logprobs[going, t] = tokens, rules.merge(full)[np.arange(len(going)), tokens]
        on = (tokens != END).nonzero()[0]
        if t + 1 == rules.options.max_length or not len(on):
            break
        if len(on) < len(going):
            going, tokens = going[on], tokens[on]
            state, evidence = decoder.pick(state, on), evidence[on] if evidence is not None else None
        logits, state = decoder.step(tokens, state)
    hypotheses = _collect(written, logprobs)
    return [hypotheses[i : i + n] for i in range(0, len(hypotheses), n)]


def _beam(
    decoder: StepDecoder, begun: _Begun, rules: Rules, evidence: Floats | None, watch: BeamWatcher | None = None
) -> list[list[Hypothesis]]:
    """Beam search: K unfinished hypotheses per picture continue, and the K best finished ones are kept beside them.

    Continuations that end leave the beam for a list ranked by log-probability / length^a (length counts `<end>`;
    neither counts the prompt). So finished hypotheses neither are lost to longer ones nor take their places for good.
    A picture is done when no unfinished hypothesis is left, or none that can still enter the list.
    """
    options, k, length = rules.options, rules.options.beam_size, len(rules.prompt)
    pictures, vocabulary = begun.logits.shape
    logits, state = begun.logits.repeat(k, 0), decoder.pick(begun.state, np.arange(pictures).repeat(k))
    beams = _Beams.begin(begun.written, begun.logprobs, k)
    going = np.arange(pictures)  # the pictures that are not done; the others cost nothing
    captions: list[list[Hypothesis]] = [[]] * pictures

    for t in range(length, options.max_length):
        full = log_softmax(logits)
        so_far = beams.written.reshape(len(going) * k, t)
        of_rows = evidence[going].repeat(k, 0) if evidence is not None else None
        weighed = _weighed(full, of_rows, rules, so_far)
        full = rules.merge(full)
        allowed = rules.scores(weighed, so_far).reshape(-1, k, vocabulary)
        best, index = top((beams.sums[..., None] + allowed).reshape(-1, k * vocabulary), k)  # (B, K)
        parent, token = index // vocabulary, index % vocabulary
        if watch:
            watch(parent, token, best)
        chosen = np.take_along_axis(full.reshape(-1, k * vocabulary), index, 1)
        beams = beams.grown(parent, token, best, chosen, (t + 1 - length) ** options.length_penalty)

        # A sum only falls, so the best score that an unfinished hypothesis can reach is its sum at the longest length.
        reachable = beams.sums.max(1) / (options.max_length - length) ** options.length_penalty
        over = (beams.done_scores.min(1) >= reachable) | (t + 1 == options.max_length)
        for picture, hypotheses in zip(going[over].tolist(), beams.at(over).ranked(options.num_captions), strict=True):
            captions[picture] = hypotheses
        on = (~over).nonzero()[0]
        if not len(on):
            break
        parents = (parent + np.arange(len(going))[:, None] * k)[on].reshape(-1)
        going, beams = going[on], beams.at(on)
        logits, state = decoder.step(token[on].reshape(-1), decoder.pick(state, parents))
    return captions


def _constrained(decoder: StepDecoder, begun: _Begun, rules: Rules, evidence: Floats | None) -> list[list[Hypothesis]]:
    """Beam search for captions that have the required words."""
    beams = Constrained(begun.written, begun.logprobs, rules)
    logits = begun.logits.repeat(beams.rows, 0)
    state = decoder.pick(begun.state, np.arange(len(begun.written)).repeat(beams.rows))
    of_rows = evidence.repeat(beams.rows, 0) if evidence is not None else None
    for t in range(len(rules.prompt), rules.options.max_length):
        full = log_softmax(logits)
        rows = beams.grow(rules.merge(full), _weighed(full, of_rows, rules, beams.written))
        if t + 1 < rules.options.max_length:
            logits, state = decoder.step(np.ascontiguousarray(beams.written[:, -1]), decoder.pick(state, rows))
    best = beams.best(rules.options.num_captions)
    return [[Hypothesis(tuple(ids), tuple(values)) for ids, values in those] for those in best]


class _Beams(NamedTuple):
    """The hypotheses of B pictures, K each, the best first.

    Unfinished ones: their sums of log-probabilities (B, K), tokens and the log-probability of each (B, K, t).
    Finished ones: the same, with the score that ranks them instead of the sum. Either is -inf where there is none.
    """

    sums: Floats
    written: Ids
    logprobs: Floats
    done_scores: Floats
    done_written: Ids
    done_logprobs: Floats

    @classmethod
    def begin(cls, written: Ids, logprobs: Floats, k: int) -> _Beams:
        """K times the prompt, tokens and log-probabilities (B, P), of which only the first may continue."""
        none = np.full((len(written), k), -np.inf, dtype=logprobs.dtype)
        sums = none.copy()
        sums[:, 0] = 0.0
        written, logprobs = written[:, None].repeat(k, 1), logprobs[:, None].repeat(k, 1)
        return cls(sums, written, logprobs, none, written, logprobs)

    def grown(self, parent: Ids, token: Ids, sums: Floats, logprobs: Floats, divisor: float) -> _Beams:
        """One token more: the K best continuations. Those that end join the finished ones.

        For each: the place of what it continues, its token, its sum, and the log-probability of the token, (B, K). The
        score of one that ends is its sum over `divisor`.
        """
        written = np.concatenate([_of_each(self.written, parent), token[..., None]], -1)
        logprobs = np.concatenate([_of_each(self.logprobs, parent), logprobs[..., None]], -1)
        ends = token == END
        scores = (np.where(ends, sums, -np.inf) / divisor).astype(sums.dtype)
        done_scores, keep = top(np.concatenate([self.done_scores, scores], 1), sums.shape[1])
        done_written = _of_each(np.concatenate([_pad(self.done_written), written], 1), keep)
        done_logprobs = _of_each(np.concatenate([_pad(self.done_logprobs), logprobs], 1), keep)
        unfinished = np.where(ends, -np.inf, sums).astype(sums.dtype)
        return _Beams(unfinished, written, logprobs, done_scores, done_written, done_logprobs)

    def at(self, pictures: NDArray[Any]) -> _Beams:
        """The hypotheses of some of the pictures, by index or mask."""
        return _Beams(*(part[pictures] for part in self))

    def ranked(self, number: int) -> list[list[Hypothesis]]:
        """The best `number` of each picture's; a tiny vocabulary may not have as many.

        Where too few are finished, unfinished ones follow them. These are all equally long.
        """
        there = np.concatenate([self.done_scores, self.sums], 1) > -np.inf
        written = np.concatenate([self.done_written, self.written], 1)
        logprobs = np.concatenate([self.done_logprobs, self.logprobs], 1)
        return [_collect(w[t][:number], p[t][:number]) for w, p, t in zip(written, logprobs, there, strict=True)]


def _of_each(values: NDArray[Any], index: Ids) -> NDArray[Any]:
    """The entries `index` (B, M) of each picture in `values` (B, N, ...): (B, M, ...)"""
    return values[np.arange(len(values))[:, None], index]


def _pad(values: NDArray[Any]) -> NDArray[Any]:
    """Append a zero, which among tokens is PAD: (..., t) -> (..., t + 1)"""
    return np.concatenate([values, np.zeros((*values.shape[:-1], 1), dtype=values.dtype)], -1)


def _collect(written: Ids, logprobs: Floats) -> list[Hypothesis]:
    """Hypotheses from rows of padded tokens and their log-probabilities, (R, T) each."""
    hypotheses = []
    for ids, values in zip(written.tolist(), logprobs.tolist(), strict=True):
        length = ids.index(PAD) if PAD in ids else len(ids)
        hypotheses.append(Hypothesis(tuple(ids[:length]), tuple(values[:length])))
    return hypotheses
