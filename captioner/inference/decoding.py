"""From a decoder's logits to captions: greedy, sampled and beam decoding of a whole batch at once.

This module sees token ids and logits only. It works with any decoder that has `init_state` and `step`.
Reported log-probabilities are always those of the decoder's full softmax at temperature 1: rules, temperature, top-k
and top-p change which word is chosen, but not the number that is reported for it.
Shapes: B pictures, N draws or K beams per picture, R = B * N rows, P tokens of a prompt, T steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from captioner.inference.constrained import Constrained
from captioner.inference.rules import Rules, of_double_precision
from captioner.vocab import END, PAD, START

ROWS = 2048  # decoded together at most, where that can be chosen: each row takes tables as long as the vocabulary


class StepDecoder(Protocol):
    """What decoding needs of a decoder. A state is a tuple of tensors with the rows in dimension 1."""

    def init_state(self, features: Tensor) -> Any:
        """(B, F) -> state"""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B,) int64, state -> logits (B, V), state"""


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
BeamWatcher: TypeAlias = Callable[[Tensor, Tensor, Tensor], object]


@torch.inference_mode()
def decode(
    decoder: StepDecoder,
    features: Tensor,
    rules: Rules,
    watch: BeamWatcher | None = None,
    evidence: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Write `rules.options.num_captions` captions for each feature of (B, F), the best first.

    Draws are ranked by log-probability, hypotheses of a beam by log-probability / length^length_penalty.
    The probabilities of the prompt's tokens are the decoder's own, and part of the caption's. Only the ranking of a
    beam leaves them out: the decoder did not choose them, and unlikely ones, divided by the length, would favour long
    captions. `watch` sees the beam grow.

    `evidence` (B, V) are logarithms of how far the pictures speak for each word, as `WordPredictor.evidence` gives
    them. Words are then chosen, and hypotheses ranked, by the product of both probabilities, divided by its sum over
    all words. The log-probabilities of hypotheses stay the decoder's own.
    """
    weight = rules.options.evidence
    scaled = weight * evidence if evidence is not None and weight else None
    return decode_state(decoder, decoder.init_state(features), rules, watch, scaled)


@torch.inference_mode()
def decode_state(
    decoder: StepDecoder,
    state: Any,
    rules: Rules,
    watch: BeamWatcher | None = None,
    evidence: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Like `decode`, from any state of B rows before `<start>`, such as one that knows of no picture. `evidence` is
    added as it is.
    """
    if state[0].shape[1] == 0:
        return []
    # A beam of 1 is greedy decoding. Greedy decoding is faster, and resolves ties in the same way.
    if rules.required:
        return _constrained(decoder, state, rules, evidence)
    if rules.options.strategy == "beam" and rules.options.beam_size > 1:
        return _beam(decoder, state, rules, watch, evidence)
    return _independent(decoder, state, rules, evidence)


def _weighed(logprobs: Tensor, evidence: Tensor | None, rules: Rules, written: Tensor) -> Tensor:
    """Log-probabilities of the next word after `written` (R, t), with the evidence for each word, both (R, V)."""
    if evidence is None:
        return rules.merge(logprobs)
    return rules.merge((logprobs + rules.left(evidence, written)).log_softmax(-1))


def _begin(decoder: StepDecoder, state: Any, prompt: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Any]:
    """Read `<start>` and the prompt, once per picture.

    Returns the prompt's tokens and their log-probabilities, (B, P) each, and the logits, (B, V), and state after it.
    """
    pictures, device = state[0].shape[1], state[0].device
    written = torch.tensor(list(prompt), dtype=torch.int64, device=device).expand(pictures, -1)
    logprobs = torch.empty(pictures, 0, device=device)  # float32, whatever the network computes in
    logits, state = decoder.step(torch.full((pictures,), START, device=device), state)
    for tokens in written.unbind(1):
        full = logits.float().log_softmax(-1)
        logprobs = torch.cat([logprobs, full.gather(1, tokens[:, None])], 1)
        logits, state = decoder.step(tokens, state)
    return written, logprobs, logits, state


def _independent(decoder: StepDecoder, state: Any, rules: Rules, evidence: Tensor | None) -> list[list[Hypothesis]]:
    """Greedy and sampled decoding: rows that know nothing of each other, some of a picture's draws at a time."""
    beginning, pictures = _begin(decoder, state, rules.prompt), state[0].shape[1]
    parts = rules.uniforms().to(of_double_precision(state[0].device)).split(max(1, ROWS // pictures))
    drawn = [_draw(decoder, beginning, rules, part, evidence) for part in parts]
    # Sorting is stable, so equal draws keep their order.
    return [sorted(chain.from_iterable(own), key=lambda h: -h.logprob) for own in zip(*drawn, strict=True)]


def _draw(
    decoder: StepDecoder,
    beginning: tuple[Tensor, Tensor, Tensor, Any],
    rules: Rules,
    uniform: Tensor,
    evidence: Tensor | None,
) -> list[list[Hypothesis]]:
    """Continue what `_begin` returned, n times per picture, with random numbers (n, T) for those who need them."""
    written, logprobs, logits, state = beginning
    n, random = len(uniform), uniform.repeat(len(written), 1)
    written, logprobs, logits = (part.repeat_interleave(n, 0) for part in (written, logprobs, logits))
    state = tuple(part.repeat_interleave(n, 1) for part in state)
    going = torch.arange(len(written), device=written.device)  # the rows without an `<end>`; others cost nothing
    for t in range(written.shape[1], rules.options.max_length):
        full = logits.float().log_softmax(-1)
        of_rows = evidence[going // n] if evidence is not None else None
        weighed = _weighed(full, of_rows, rules, written[going])
        full = rules.merge(full)
        tokens = rules.next_token(rules.scores(weighed, written[going]), random[going, t])
        written, logprobs = _pad(written), _pad(logprobs)
        written[going, t], logprobs[going, t] = tokens, full.gather(1, tokens[:, None]).squeeze(1)
        on = (tokens != END).nonzero().squeeze(1)
        if t + 1 == rules.options.max_length or not len(on):
            break
        if len(on) < len(going):
            going, tokens = going[on], tokens[on]
            state = tuple(part.index_select(1, on) for part in state)
        logits, state = decoder.step(tokens, state)
    hypotheses = _collect(written, logprobs)
    return [hypotheses[i : i + n] for i in range(0, len(hypotheses), n)]


def _beam(
    decoder: StepDecoder,
    state: Any,
    rules: Rules,
    watch: BeamWatcher | None = None,
    evidence: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Beam search: K unfinished hypotheses per picture continue, and the K best finished ones are kept beside them.

    Continuations that end leave the beam for a list ranked by log-probability / length^a (length counts `<end>`;
    neither counts the prompt). So finished hypotheses neither are lost to longer ones nor take their places for good.
    A picture is done when no unfinished hypothesis is left, or none that can still enter the list.
    """
    options, k, begun = rules.options, rules.options.beam_size, len(rules.prompt)
    written, logprobs, logits, state = _begin(decoder, state, rules.prompt)
    (pictures, vocabulary), device = logits.shape, logits.device
    logits, state = logits.repeat_interleave(k, 0), tuple(part.repeat_interleave(k, 1) for part in state)
    beams = _Beams.begin(written, logprobs, k)
    going = torch.arange(pictures, device=device)  # the pictures that are not done; the others cost nothing
    captions: list[list[Hypothesis]] = [[]] * pictures

    for t in range(begun, options.max_length):
        full = logits.float().log_softmax(-1)
        so_far = beams.written.flatten(0, 1)
        of_rows = evidence[going].repeat_interleave(k, 0) if evidence is not None else None
        weighed = _weighed(full, of_rows, rules, so_far)
        full = rules.merge(full)
        allowed = rules.scores(weighed, so_far).view(-1, k, vocabulary)
        totals = (beams.sums.unsqueeze(-1) + allowed).view(-1, k * vocabulary)
        best, index = totals.topk(k, dim=1)  # (B, K)
        parent, token = index // vocabulary, index % vocabulary
        if watch:
            watch(parent, token, best)
        chosen = full.view(-1, k * vocabulary).gather(1, index)
        beams = beams.grown(parent, token, best, chosen, (t + 1 - begun) ** options.length_penalty)

        # A sum only falls, so the best score that an unfinished hypothesis can reach is its sum at the longest length.
        reachable = beams.sums.amax(1) / (options.max_length - begun) ** options.length_penalty
        over = (beams.done_scores.amin(1) >= reachable) | (t + 1 == options.max_length)
        for picture, hypotheses in zip(going[over].tolist(), beams.at(over).ranked(options.num_captions), strict=True):
            captions[picture] = hypotheses
        on = (~over).nonzero().squeeze(1)
        if not len(on):
            break
        parents = (parent + torch.arange(len(going), device=device).unsqueeze(1) * k)[on].view(-1)
        going, beams = going[on], beams.at(on)
        state = tuple(part.index_select(1, parents) for part in state)
        logits, state = decoder.step(token[on].view(-1), state)
    return captions


def _constrained(decoder: StepDecoder, state: Any, rules: Rules, evidence: Tensor | None) -> list[list[Hypothesis]]:
    """Beam search for captions that have the required words."""
    written, logprobs, logits, state = _begin(decoder, state, rules.prompt)
    beams = Constrained(written, logprobs, rules)
    logits, state = logits.repeat_interleave(beams.rows, 0), beams.first(state)
    of_rows = evidence.repeat_interleave(beams.rows, 0) if evidence is not None else None
    for t in range(len(rules.prompt), rules.options.max_length):
        full = logits.float().log_softmax(-1)
        rows = beams.grow(rules.merge(full), _weighed(full, of_rows, rules, beams.written))
        if t + 1 < rules.options.max_length:
            state = tuple(part.index_select(1, rows) for part in state)
            logits, state = decoder.step(beams.written[:, -1], state)
    best = beams.best(rules.options.num_captions)
    return [[Hypothesis(tuple(ids), tuple(values)) for ids, values in those] for those in best]


class _Beams(NamedTuple):
    """The hypotheses of B pictures, K each, the best first.

    Unfinished ones: their sums of log-probabilities (B, K), tokens and the log-probability of each (B, K, t).
    Finished ones: the same, with the score that ranks them instead of the sum. Either is -inf where there is none.
    """

    sums: Tensor
    written: Tensor
    logprobs: Tensor
    done_scores: Tensor
    done_written: Tensor
    done_logprobs: Tensor

    @classmethod
    def begin(cls, written: Tensor, logprobs: Tensor, k: int) -> _Beams:
        """K times the prompt, tokens and log-probabilities (B, P), of which only the first may continue."""
        sums = logprobs.new_full((len(written), k), -torch.inf)
        sums[:, 0] = 0.0
        written, logprobs = (part.unsqueeze(1).expand(-1, k, -1) for part in (written, logprobs))
        return cls(sums, written, logprobs, torch.full_like(sums, -torch.inf), written, logprobs)

    def grown(self, parent: Tensor, token: Tensor, sums: Tensor, logprobs: Tensor, divisor: float) -> _Beams:
        """One token more: the K best continuations. Those that end join the finished ones.

        For each: the place of what it continues, its token, its sum, and the log-probability of the token, (B, K). The
        score of one that ends is its sum over `divisor`.
        """
        written = torch.cat([_pick(self.written, parent), token.unsqueeze(-1)], -1)
        logprobs = torch.cat([_pick(self.logprobs, parent), logprobs.unsqueeze(-1)], -1)
        ends = token == END
        scores = torch.where(ends, sums, -torch.inf) / divisor
        done_scores, keep = torch.cat([self.done_scores, scores], 1).topk(sums.shape[1], dim=1)
        done_written = _pick(torch.cat([_pad(self.done_written), written], 1), keep)
        done_logprobs = _pick(torch.cat([_pad(self.done_logprobs), logprobs], 1), keep)
        return _Beams(sums.masked_fill(ends, -torch.inf), written, logprobs, done_scores, done_written, done_logprobs)

    def at(self, pictures: Tensor) -> _Beams:
        """The hypotheses of some of the pictures, by index or mask."""
        return _Beams(*(part[pictures] for part in self))

    def ranked(self, number: int) -> list[list[Hypothesis]]:
        """The best `number` of each picture's; a tiny vocabulary may not have as many.

        Where too few are finished, unfinished ones follow them. These are all equally long.
        """
        there = torch.cat([self.done_scores, self.sums], 1) > -torch.inf
        written = torch.cat([self.done_written, self.written], 1)
        logprobs = torch.cat([self.done_logprobs, self.logprobs], 1)
        return [_collect(w[t][:number], p[t][:number]) for w, p, t in zip(written, logprobs, there, strict=True)]


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """The entries `index` (B, M) of each picture in `values` (B, N, ...): (B, M, ...)"""
    return values[torch.arange(len(values), device=values.device).unsqueeze(1), index]


def _pad(values: Tensor) -> Tensor:
    """Append a zero, which among tokens is PAD: (..., t) -> (..., t + 1)"""
    return torch.nn.functional.pad(values, (0, 1))


def _collect(written: Tensor, logprobs: Tensor) -> list[Hypothesis]:
    """Hypotheses from rows of padded tokens and their log-probabilities, (R, T) each."""
    hypotheses = []
    for ids, values in zip(written.tolist(), logprobs.tolist(), strict=True):
        length = ids.index(PAD) if PAD in ids else len(ids)
        hypotheses.append(Hypothesis(tuple(ids[:length]), tuple(values[:length])))
    return hypotheses
