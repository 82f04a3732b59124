"""Beam search for captions that have given words (Anderson et al. 2017, "Guided open vocabulary image captioning with
constrained beam search").

There is a beam for each set of required words that a hypothesis may have. Writing one of the missing words takes a
hypothesis into another beam, and only those of the last one, which have all words, may end.
Shapes: B pictures, S sets of required words, K hypotheses of a beam, V vocabulary, t tokens so far.
"""

from __future__ import annotations

import numpy as np

from captioner.inference.rules import Floats, Ids, Rules, top
from captioner.vocab import END

Moves = tuple[Floats, Ids, Ids]  # sums of the best continuations, the rows that they continue, and their tokens


def moves(totals: Floats, required: tuple[int, ...]) -> Moves:
    """The K best continuations of each beam, (B, S, K), from the sums of all of them, `totals` (B, S, K, V).

    Bit i of a beam's number says whether its hypotheses have the required token i. Rows are counted over all beams.
    """
    pictures, beams, k, vocabulary = totals.shape
    first = np.arange(pictures)[:, None] * beams * k  # row of each picture
    found = []
    for beam in range(beams):
        have = [i for i in range(len(required)) if beam >> i & 1]
        stay = totals[:, beam].copy()
        stay[..., [token for i, token in enumerate(required) if i not in have]] = -np.inf
        if beam != beams - 1:
            stay[..., END] = -np.inf
        enter = [totals[:, beam ^ (1 << i), :, required[i]] for i in have]
        best, index = top(np.concatenate([stay.reshape(pictures, -1), *enter], 1), k)
        # Behind those that stay come K that enter with each of the tokens that this beam has.
        behind = index - k * vocabulary
        froms = np.array([beam ^ (1 << i) for i in have] or [0])
        tokens = np.array([required[i] for i in have] or [0])
        which = np.maximum(behind // k, 0)
        stays = behind < 0
        row = np.where(stays, beam * k + index // vocabulary, froms[which] * k + behind % k)
        found.append((best, first + row, np.where(stays, index % vocabulary, tokens[which])))
    sums, rows, tokens = (np.stack(part, 1) for part in zip(*found, strict=True))
    return sums, rows, tokens


class Constrained:
    """The hypotheses of B pictures in S beams, and the finished ones of the last beam, from a prompt (B, P)."""

    def __init__(self, written: Ids, logprobs: Floats, rules: Rules) -> None:
        self._rules, self._k, required = rules, rules.options.beam_size, rules.required
        self._required = required
        self._shape = len(written), 1 << len(required), self._k
        self.rows = self._shape[1] * self._k  # of a picture
        begun = sum(1 << i for i, token in enumerate(required) if token in rules.prompt)
        self._sums = np.full(self._shape, -np.inf, dtype=logprobs.dtype)
        self._sums[:, begun, 0] = 0.0
        self.written, self._logprobs = written.repeat(self.rows, 0), logprobs.repeat(self.rows, 0)
        self._begun = written.shape[1]
        self._done: list[list[tuple[float, list[int], list[float]]]] = [[] for _ in range(len(written))]

    def grow(self, logprobs: Floats, weighed: Floats) -> Ids:
        """Add a token to every hypothesis, by the decoder's log-probabilities of it and by the weighed ones, (rows, V).

        Returns the rows that the new rows continue.
        """
        scores = self._rules.scores(weighed, self.written).reshape(*self._shape, -1)
        self._sums, parents, tokens = moves(self._sums[..., None] + scores, self._required)
        rows, added = parents.reshape(-1), tokens.reshape(-1, 1)
        self.written = np.concatenate([self.written[rows], added], 1)
        self._logprobs = np.concatenate([self._logprobs[rows], np.take_along_axis(logprobs[rows], added, 1)], 1)
        self._finish(tokens)
        return rows

    def _finish(self, tokens: Ids) -> None:
        """Put the hypotheses that ended beside the others."""
        divisor = (self.written.shape[1] - self._begun) ** self._rules.options.length_penalty
        ends = (tokens == END) & (self._sums > -np.inf)
        for picture, beam, place in np.argwhere(ends).tolist():
            row = (picture * self._shape[1] + beam) * self._k + place
            score = float(self._sums[picture, beam, place]) / divisor
            self._done[picture].append((score, self.written[row].tolist(), self._logprobs[row].tolist()))
        self._sums[ends] = -np.inf

    def best(self, number: int) -> list[list[tuple[list[int], list[float]]]]:
        """The tokens and log-probabilities of the best `number` hypotheses of each picture.

        Finished ones come first, then those of the last beam that the length limit cut off. Where other rules kept all
        from having every word, they are those with the most words.
        """
        found = []
        fullest = sorted(range(self._shape[1]), key=lambda beam: -beam.bit_count())
        for picture, done in enumerate(self._done):
            ranked = [(ids, values) for _, ids, values in sorted(done, key=lambda each: -each[0])]
            there = self._sums[picture] > -np.inf
            beam = next((beam for beam in fullest if there[beam].any()), fullest[0])
            if beam == fullest[0] or not ranked:
                first = (picture * self._shape[1] + beam) * self._k
                rows = first + there[beam].nonzero()[0]
                ranked += [(self.written[row].tolist(), self._logprobs[row].tolist()) for row in rows]
            found.append(ranked[:number])
        return found
