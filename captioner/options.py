"""Options that Python, the command line and the web page share: declared once here, checked once on creation.

This module imports nothing heavy, so that `captioner --help` is instant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from captioner.errors import OptionError

CELLS = ("lstm", "gru", "rnn", "rnn-relu", "peephole")
TOKEN_KINDS = ("word", "character")
PRECISIONS = ("auto", "float32", "bfloat16")
ENGINES = ("torch", "openvino")


@dataclass(frozen=True)
class OptionSpec:
    """What is known of one option: enough for a check, a command-line flag and a slider."""

    name: str
    kind: type
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()  # the strategies that use it; empty: all of them

    @property
    def flag(self) -> str:
        """The option as it is typed on the command line."""
        return "--" + self.name.replace("_", "-")


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    strategies: tuple[str, ...] = (),
) -> Any:
    """Declare a dataclass field together with its help text and permitted range (both ends included)."""
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "strategies": strategies}
    return dataclasses.field(default=default, metadata=metadata)


def option_specs(options: type) -> Iterator[OptionSpec]:
    """The options of a dataclass whose fields were declared with `option`, in their order."""
    for field in dataclasses.fields(options):
        yield OptionSpec(field.name, type(field.default), field.default, **field.metadata)


def check_ranges(options: Any) -> None:
    """Raise OptionError for the first field whose type, range or choice is wrong."""
    for spec in option_specs(type(options)):
        value: Any = getattr(options, spec.name)
        wanted: Any = (int, float) if spec.kind is float else spec.kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and spec.kind is not bool):
            raise OptionError(f"{spec.name} must be {_article(spec.kind)}, not {value!r}")
        if spec.choices and value not in spec.choices:
            raise OptionError(f"{spec.name} must be one of {', '.join(spec.choices)}, not {value!r}")
        # "not (low <= value)" also catches NaN, which compares false with everything.
        if spec.low is not None and not value >= spec.low:
            raise OptionError(f"{spec.name} must be at least {spec.low:g}, not {value!r}")
        if spec.high is not None and not value <= spec.high:
            raise OptionError(f"{spec.name} must be at most {spec.high:g}, not {value!r}")


def _article(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind]


@dataclass(frozen=True)
class DecodeOptions:
    """How captions are chosen from the decoder's probabilities.

    Raises OptionError for values out of range and for options that contradict each other.
    """

    strategy: str = option(
        "beam",
        "greedy takes the likeliest word at each step, sample draws words, beam keeps the best few hypotheses",
        choices=("greedy", "sample", "beam"),
    )
    beam_size: int = option(3, "hypotheses kept at each step", low=1, high=100, strategies=("beam",))
    length_penalty: float = option(
        0.7,
        "a, where hypotheses are ranked by log-probability / length^a: 0 favours short captions",
        low=0.0,
        high=3.0,
        strategies=("beam",),
    )
    temperature: float = option(
        1.0,
        "below 1 draws likely words more often, above 1 less often",
        low=0.01,
        high=10.0,
        strategies=("sample",),
    )
    top_k: int = option(0, "draw from the k likeliest words only; 0: all", low=0, strategies=("sample",))
    top_p: float = option(
        1.0,
        "draw from the likeliest words that together have this probability",
        low=0.01,
        high=1.0,
        strategies=("sample",),
    )
    num_captions: int = option(
        1,
        "captions a picture: the best hypotheses of a beam, or independent draws",
        low=1,
        high=100_000,
        strategies=("sample", "beam"),
    )
    min_length: int = option(0, "words a caption has at least", low=0, high=200)
    max_length: int = option(20, "words a caption has at most", low=1, high=200)
    no_repeat_ngram: int = option(0, "no sequence of n words twice in a caption; 0: allowed", low=0, high=20)
    # Not limited to sampling: a script that always passes its seed asks for nothing contradictory.
    seed: int = option(0, "fixes the draws: the same seed gives the same captions", low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        check_ranges(self)
        for spec in option_specs(type(self)):
            unused = spec.strategies and self.strategy not in spec.strategies
            if unused and getattr(self, spec.name) != spec.default:
                raise OptionError(
                    f"{spec.name} has no effect with strategy {self.strategy}: "
                    f"choose strategy {' or '.join(spec.strategies)}, or leave {spec.name} out"
                )
        if self.strategy == "beam" and self.num_captions > self.beam_size:
            raise OptionError(
                f"a beam of {self.beam_size} cannot give {self.num_captions} captions: "
                f"set beam_size to at least {self.num_captions}"
            )
        if self.min_length > self.max_length:
            raise OptionError(
                f"min_length {self.min_length} is more than max_length {self.max_length}: "
                f"set max_length to at least {self.min_length}, or min_length lower"
            )

    def used(self) -> dict[str, Any]:
        """What this strategy uses, by name; what says in a report how captions were made."""
        return {
            spec.name: getattr(self, spec.name)
            for spec in option_specs(type(self))
            if not spec.strategies or self.strategy in spec.strategies
        }


def parse_options(options: type, given: Mapping[str, Any]) -> Any:
    """An options object from those of `given` that it declares, the others left at their defaults."""
    names = {spec.name for spec in option_specs(options)}
    return options(**{name: value for name, value in given.items() if name in names})
