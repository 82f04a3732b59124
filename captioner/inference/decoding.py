"""From a decoder's logits to hypotheses: greedy, sampled and beam decoding of a whole batch at once.

Sees token ids and logits only. Any decoder with `init_state` and `step` will do (see `StepDecoder`).
One meaning of probability: log-probabilities are the decoder's full softmax at temperature 1. Bans, temperature,
top-k and top-p restrict or reshape the choice, never the reported numbers.
Shapes: B pictures, N draws or beams a picture, R = B * N rows, P tokens of a prompt, T steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from captioner.errors import OptionError
from captioner.options import DecodeOptions
from captioner.vocab import END, PAD, SPECIAL_TOKENS, START, UNK, Vocabulary

STUTTER = 4  # words after a conjunction that are not the one before it: "jacket and a bright red jacket"
ROWS = 2048  # decoded together, where that can be chosen: each takes tables as long as the vocabulary


class StepDecoder(Protocol):
    """What decoding asks of a decoder. A state is a tuple of tensors with the rows in dimension 1."""

    def init_state(self, features: Tensor) -> Any:
        """(B, F) -> state"""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B,) int64, state -> logits (B, V), state"""


@dataclass(frozen=True)
class Hypothesis:
    """Token ids of one caption with the log-probability of each; `<end>` is the last where it was reached."""

    tokens: tuple[int, ...]
    token_logprobs: tuple[float, ...]

    @property
    def finished(self) -> bool:
        """Whether `<end>` was reached before the length limit."""
        return bool(self.tokens) and self.tokens[-1] == END

    @property
    def logprob(self) -> float:
        """Log-probability (natural logarithm) of the caption, `<end>` included where it was reached."""
        return sum(self.token_logprobs)


# Told at each step of a beam what it goes on with, best first: for each place the place among those of the step before,
# the token, and the log-probability of all so far, -inf where there is nothing; (B, K) each.
BeamWatcher: TypeAlias = Callable[[Tensor, Tensor, Tensor], object]


@torch.inference_mode()
def decode(
    decoder: StepDecoder,
    features: Tensor,
    options: DecodeOptions,
    prompt: Sequence[int] = (),
    conjunctions: Sequence[int] = (),
    watch: BeamWatcher | None = None,
) -> list[list[Hypothesis]]:
    """Write `options.num_captions` captions for each feature of (B, F), the best first.

    Best means: by log-probability among draws, by log-probability / length^length_penalty in a beam.
    Every caption begins with the tokens of `prompt`: their probabilities are the decoder's own and part of the
    caption's, the limits of its length count them, and rules see them. Only a beam ranks by what follows them: they
    are no choice of the decoder's, and unlikely ones, divided by the length, would favour long captions.
    With the tokens of words such as "and" in `conjunctions` no caption stutters, see `ban`. `watch` sees the beam grow.
    Raises OptionError when the prompt leaves no room below `max_length`, ValueError for special tokens in it.
    """
    return decode_state(decoder, decoder.init_state(features), options, prompt, conjunctions, watch)


@torch.inference_mode()
def decode_state(
    decoder: StepDecoder,
    state: Any,
    options: DecodeOptions,
    prompt: Sequence[int] = (),
    conjunctions: Sequence[int] = (),
    watch: BeamWatcher | None = None,
) -> list[list[Hypothesis]]:
    """The same from any state of B rows before `<start>`, such as one that knows of no picture."""
    check_prompt(prompt, options)
    if state[0].shape[1] == 0:
        return []
    # A beam of 1 is greedy decoding. Done as such it is so to the last tie, and faster.
    if options.strategy == "beam" and options.beam_size > 1:
        return _beam(decoder, state, options, prompt, conjunctions, watch)
    return _independent(decoder, state, options, prompt, conjunctions)


def check_prompt(prompt: Sequence[int], options: DecodeOptions) -> None:
    """Raise OptionError for a prompt that leaves no room for a word, ValueError for special tokens in it."""
    if not {PAD, START, END, UNK}.isdisjoint(prompt):
        raise ValueError(f"a prompt cannot hold <pad>, <start>, <end> or <unk>: {list(prompt)}")
    if len(prompt) >= options.max_length:
        raise OptionError(
            f"the prompt is {len(prompt)} words long and max_length {options.max_length} counts them: "
            f"set max_length to at least {len(prompt) + 1}, or shorten the prompt"
        )


def uniforms(options: DecodeOptions) -> Tensor:
    """All the randomness that sampling needs, from the seed: (N, T) float64 in [0, 1).

    Every picture sees the same numbers, so its captions do not depend on the batch it is in; each caption of a
    picture sees its own. Asking for more captions keeps the first ones.
    """
    generator = torch.Generator().manual_seed(options.seed)
    return torch.rand(options.num_captions, options.max_length, generator=generator, dtype=torch.float64)


def choose(scores: Tensor, options: DecodeOptions, uniform: Tensor | None) -> Tensor:
    """The next token of each row from scores (R, V), -inf where banned: (R,) int64.

    Without `uniform` the likeliest. With one number in [0, 1) a row, (R,), the word at which the cumulative
    distribution after temperature, top-k and top-p (Holtzman et al. 2020) passes that number.
    """
    if uniform is None or options.top_k == 1:
        return scores.argmax(-1)  # of equal scores the first, which topk does not promise
    # Double precision, so that a sum over thousands of small probabilities still ends at 1. Only where words are
    # left out do they have to be ranked.
    if options.top_k:
        ranked, ids = scores.double().topk(min(options.top_k, scores.shape[-1]), dim=-1)
    elif options.top_p < 1.0:
        ranked, ids = scores.double().sort(dim=-1, descending=True, stable=True)
    else:
        ranked, ids = (
            scores.double(),
            torch.arange(scores.shape[-1], device=scores.device).expand(scores.shape),
        )
    probabilities = (ranked / options.temperature).softmax(-1)
    if options.top_p < 1.0:
        before = probabilities.cumsum(-1) - probabilities
        probabilities[before >= options.top_p] = 0.0  # the first word always stays
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1]
    # Rounding must not take the product to the total itself, which no word would pass.
    target = (uniform * total).minimum(torch.nextafter(total, torch.zeros_like(total)))
    rank = torch.searchsorted(cumulative, target.unsqueeze(1), right=True)
    return ids.gather(1, rank).squeeze(1)


def ban(logprobs: Tensor, written: Tensor, options: DecodeOptions, conjunctions: Sequence[int] = ()) -> Tensor:
    """Scores of the next token, (R, V): -inf where a rule forbids it after the tokens written so far, (R, t).

    `<pad>`, `<start>` and `<unk>` are never written, and what stands before one of the `conjunctions` is none of the
    next few words after it: of a thousand captions forty said "a red jacket and a red jacket", which people hardly
    ever do. Where the rules leave nothing, `<end>` is allowed.
    """
    scores = logprobs.clone()
    scores[:, [PAD, START, UNK]] = -torch.inf
    t = written.shape[1]
    if conjunctions and t > 1:
        first = max(1, t - STUTTER)
        joins = torch.isin(written[:, first:], torch.tensor(conjunctions, device=written.device))
        scores.scatter_(1, torch.where(joins, written[:, first - 1 : -1], PAD), -torch.inf)
    n = options.no_repeat_ngram
    if n and t >= n:
        windows = written.unfold(1, n, 1)  # (R, t - n + 1, n)
        # The windows whose first n - 1 tokens are the last n - 1 written: their last token would repeat them.
        repeats = (windows[:, :, :-1] == written[:, None, t - n + 1 :]).all(-1)
        forbidden = torch.zeros_like(scores, dtype=torch.bool)
        forbidden.scatter_(1, torch.where(repeats, windows[:, :, -1], PAD), True)
        scores = scores.masked_fill(forbidden, -torch.inf)
    end = scores[:, END].clone()
    if t < options.min_length:
        scores[:, END] = -torch.inf
    stuck = scores.amax(-1).isneginf()
    # Finite even where the decoder itself rules `<end>` out: something has to be written.
    scores[:, END] = torch.where(stuck, end.clamp(min=torch.finfo(end.dtype).min), scores[:, END])
    return scores


def _begin(decoder: StepDecoder, state: Any, prompt: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Any]:
    """Read `<start>` and the prompt, once a picture.

    Returns the prompt's tokens and their log-probabilities, (B, P) each, the logits of what follows, (B, V), and the
    state after it.
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


def _independent(
    decoder: StepDecoder, state: Any, options: DecodeOptions, prompt: Sequence[int], conjunctions: Sequence[int]
) -> list[list[Hypothesis]]:
    """Greedy and sampled decoding: rows that know nothing of each other, some of a picture's draws at a time."""
    beginning = _begin(decoder, state, prompt)
    pictures = state[0].shape[1]
    if options.strategy == "sample":
        parts = uniforms(options).to(state[0].device).split(max(1, ROWS // pictures))
        drawn = [_draw(decoder, beginning, options, part, conjunctions) for part in parts]
    else:
        drawn = [_draw(decoder, beginning, options, None, conjunctions)]
    grouped = [[hypothesis for part in drawn for hypothesis in part[i]] for i in range(pictures)]
    return [sorted(group, key=lambda h: -h.logprob) for group in grouped]  # stable: equal draws keep their order


def _draw(
    decoder: StepDecoder,
    beginning: tuple[Tensor, Tensor, Tensor, Any],
    options: DecodeOptions,
    uniform: Tensor | None,
    conjunctions: Sequence[int],
) -> list[list[Hypothesis]]:
    """Go on from what `_begin` gave: n times a picture with random numbers (n, T), without them once and greedily."""
    written, logprobs, logits, state = beginning
    pictures, n = len(written), 1 if uniform is None else len(uniform)
    random = None if uniform is None else uniform.repeat(pictures, 1)
    written, logprobs, logits = (part.repeat_interleave(n, 0) for part in (written, logprobs, logits))
    state = _repeat(state, n)
    going = torch.arange(len(written), device=written.device)  # rows without their `<end>`: only they cost anything
    for t in range(written.shape[1], options.max_length):
        full = logits.float().log_softmax(-1)
        scores = ban(full, written[going], options, conjunctions)
        tokens = choose(scores, options, None if random is None else random[going, t])
        written, logprobs = _pad(written), _pad(logprobs)
        written[going, t] = tokens
        logprobs[going, t] = full.gather(1, tokens[:, None]).squeeze(1)
        on = (tokens != END).nonzero().squeeze(1)
        if t + 1 == options.max_length or not len(on):
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
    options: DecodeOptions,
    prompt: Sequence[int],
    conjunctions: Sequence[int],
    watch: BeamWatcher | None = None,
) -> list[list[Hypothesis]]:
    """Beam search: K unfinished hypotheses a picture go on, the K best finished ones are kept beside them.

    Of the K best continuations those that end leave the beam for a list ranked by log-probability / length^a
    (length counts `<end>`; neither counts the prompt), so that a finished hypothesis is neither lost to longer ones
    nor takes their place for good. A picture is done when no unfinished hypothesis is left, or the list is full and
    none can still enter it.
    A beam of 1 is greedy decoding.
    """
    k = options.beam_size
    written, logprobs, logits, state = _begin(decoder, state, prompt)
    (pictures, vocabulary), device = logits.shape, logits.device
    logits = logits.repeat_interleave(k, 0)
    state = _repeat(state, k)

    # All K begin as the same one, the prompt, of which only the first may go on.
    sums = logprobs.new_full((pictures, k), -torch.inf)
    sums[:, 0] = 0.0
    written, logprobs = (part.unsqueeze(1).expand(-1, k, -1) for part in (written, logprobs))
    beams = _Beams(sums, written, logprobs, torch.full_like(sums, -torch.inf), written, logprobs)
    longest = options.max_length - len(prompt)
    going = list(range(pictures))  # which pictures these are: those that are done leave, and cost nothing any more
    captions: list[list[Hypothesis]] = [[]] * pictures

    for t in range(len(prompt), options.max_length):
        rows = len(going) * k
        full = logits.float().log_softmax(-1)
        allowed = ban(full, beams.written.reshape(rows, t), options, conjunctions).view(-1, k, vocabulary)
        totals = (beams.sums.unsqueeze(-1) + allowed).view(-1, k * vocabulary)
        best, index = totals.topk(k, dim=1)  # (B, K)
        parent, token = index // vocabulary, index % vocabulary
        if watch:
            watch(parent, token, best)
        chosen = full.view(-1, k * vocabulary).gather(1, index)
        written = torch.cat([_pick(beams.written, parent), token.unsqueeze(-1)], -1)
        logprobs = torch.cat([_pick(beams.logprobs, parent), chosen.unsqueeze(-1)], -1)

        # Those that end here join the finished ones; their places are taken again at the next step.
        ends = token == END
        scores = torch.where(ends, best, -torch.inf) / (t + 1 - len(prompt)) ** options.length_penalty
        done_scores, keep = torch.cat([beams.done_scores, scores], 1).topk(k, dim=1)
        done_written = _pick(torch.cat([_pad(beams.done_written), written], 1), keep)
        done_logprobs = _pick(torch.cat([_pad(beams.done_logprobs), logprobs], 1), keep)
        sums = best.masked_fill(ends, -torch.inf)
        beams = _Beams(sums, written, logprobs, done_scores, done_written, done_logprobs)

        # A sum only falls, so the best that an unfinished one can reach is its sum now at the longest length.
        over = done_scores.amin(1) >= sums.amax(1) / longest**options.length_penalty
        if t + 1 == options.max_length:
            over = torch.ones_like(over)
        for place, found in zip(over.nonzero().squeeze(1).tolist(), beams.at(over).ranked(options), strict=True):
            captions[going[place]] = found
        on = (~over).nonzero().squeeze(1)
        if not len(on):
            break
        parents = (parent + torch.arange(len(going), device=device).unsqueeze(1) * k)[on].view(-1)
        going, beams = [going[place] for place in on.tolist()], beams.at(on)
        state = tuple(part.index_select(1, parents) for part in state)
        logits, state = decoder.step(token[on].view(-1), state)
    return captions


class _Beams(NamedTuple):
    """The hypotheses of B pictures, K each.

    Unfinished ones: their sums of log-probabilities (B, K), tokens and the log-probability of each (B, K, t).
    Finished ones: the same, with the score that ranks them, -inf where there is none yet.
    """

    sums: Tensor
    written: Tensor
    logprobs: Tensor
    done_scores: Tensor
    done_written: Tensor
    done_logprobs: Tensor

    def at(self, pictures: Tensor) -> _Beams:
        """Those of some of the pictures, by index or mask."""
        return _Beams(*(part[pictures] for part in self))

    def ranked(self, options: DecodeOptions) -> list[list[Hypothesis]]:
        """`options.num_captions` of each picture's, the best first.

        Without enough finished hypotheses the unfinished ones, equally long, fill up, always after the finished.
        """
        scores = torch.cat([self.done_scores, self.sums], 1)
        finished_first = torch.cat([self.done_scores.isneginf(), torch.ones_like(self.sums, dtype=torch.bool)], 1)
        written = torch.cat([self.done_written, self.written], 1)
        logprobs = torch.cat([self.done_logprobs, self.logprobs], 1)
        order = scores.argsort(dim=1, descending=True, stable=True)
        order = order.gather(1, finished_first.gather(1, order).int().argsort(dim=1, stable=True))[
            :, : options.num_captions
        ]
        best = zip(_pick(written, order), _pick(logprobs, order), scores.gather(1, order), strict=True)
        # A tiny vocabulary may not have as many captions as were asked for.
        return [_collect(w[~s.isneginf()], p[~s.isneginf()]) for w, p, s in best]


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Of (B, N, ...) the rows (B, M) of each picture: (B, M, ...)"""
    return values[torch.arange(len(values), device=values.device).unsqueeze(1), index]


def _pad(values: Tensor) -> Tensor:
    """One more step at the end, zero, which is PAD among tokens: (..., t) -> (..., t + 1)"""
    return torch.nn.functional.pad(values, (0, 1))


def _repeat(state: Any, n: int) -> Any:
    """Every row n times in a row: each part (L, B, H) -> (L, B * n, H)"""
    return tuple(part.repeat_interleave(n, 1) for part in state)


def _collect(written: Tensor, logprobs: Tensor) -> list[Hypothesis]:
    """Rows of padded tokens and log-probabilities, (R, T), to hypotheses."""
    hypotheses = []
    for ids, values in zip(written.tolist(), logprobs.tolist(), strict=True):
        length = ids.index(PAD) if PAD in ids else len(ids)
        hypotheses.append(Hypothesis(tuple(ids[:length]), tuple(values[:length])))
    return hypotheses


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
