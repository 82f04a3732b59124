"""Options that Python, the command line and the web page share. Each is declared once and checked on creation.

This module imports nothing heavy, so that `captioner --help` stays fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from captioner.errors import OptionError

CELLS = ("lstm", "gru", "rnn", "rnn-relu", "peephole")
TOKEN_KINDS = ("word", "character")
PRECISIONS = ("auto", "float32", "bfloat16")
ENGINES = ("auto", "torch", "onnx")
UNSURE = ("write", "mark", "skip")  # what becomes of captions that are not sure
FILE_FORMATS = ("text", "jsonl", "csv", "coco", "sidecar", "html", "xmp", "embed")  # of `caption_files`
APPLY_FORMATS = ("xmp", "sidecar", "embed", "alt")  # of `apply_captions`
WATCH_FORMATS = ("xmp", "sidecar", "embed", "text", "jsonl", "csv")  # of `watch_folders`
READ_FORMATS = ("text", "jsonl", "csv")  # of `read_files`
PLACES = ("xmp", "embedded", "text")  # where it looks
FIND_FORMATS = ("text", "jsonl", "csv", "html")  # of `captioner find`
SHARD_FORMATS = ("parquet", "jsonl")  # of `caption_on_cluster`


@dataclass(frozen=True)
class OptionSpec:
    """What is known of one option: enough to check it, and to make a command-line flag or a slider of it."""

    name: str
    kind: type
    default: Any
    help: str
    group: str = ""  # the heading of its flag in `--help`
    low: float | None = None  # the permitted range, both ends included
    high: float | None = None
    choices: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()  # the decoding strategies that use it; empty: all of them
    unset: str = ""  # what a default of None means, in words

    @property
    def flag(self) -> str:
        """The option as it is typed on the command line."""
        return "--" + self.name.replace("_", "-")


def option(default: Any, help: str, *, kind: type | None = None, unset: str = "", **facts: Any) -> Any:
    """Declare a dataclass field together with its help text and other `facts` of an OptionSpec.

    An option whose default is None also needs its `kind`, and in `unset` what None means, in a few words.
    """
    if default is None and not (kind and unset):
        raise TypeError(f"an option whose default is None needs kind= and unset=: {help!r}")
    spec = OptionSpec("", kind or type(default), default, help, unset=unset, **facts)
    return dataclasses.field(default=default, metadata={"spec": spec})


def option_specs(options: type) -> tuple[OptionSpec, ...]:
    """The options of a dataclass whose fields were declared with `option`, in their order."""
    return _specs(options)


@cache  # the options of each caption are checked, and to gather these would take a noticeable part of its time
def _specs(options: type) -> tuple[OptionSpec, ...]:
    fields = dataclasses.fields(options)
    return tuple(dataclasses.replace(field.metadata["spec"], name=field.name) for field in fields)


def check_ranges(options: Any) -> None:
    """Raise OptionError for the first field whose type, range or choice is wrong."""
    for spec in option_specs(type(options)):
        value: Any = getattr(options, spec.name)
        if value is None and spec.default is None:
            continue
        wanted: Any = (int, float) if spec.kind is float else spec.kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and spec.kind is not bool):
            raise OptionError(f"{spec.name} must be {_KINDS[spec.kind]}, not {value!r}")
        if spec.choices and value not in spec.choices:
            raise OptionError(f"{spec.name} must be one of {', '.join(spec.choices)}, not {value!r}")
        # "not value >= low" instead of "value < low", so that NaN is refused as well.
        if spec.low is not None and not value >= spec.low:
            raise OptionError(f"{spec.name} must be at least {spec.low:g}, not {value!r}")
        if spec.high is not None and not value <= spec.high:
            raise OptionError(f"{spec.name} must be at most {spec.high:g}, not {value!r}")


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_decoding = partial(option, group="how captions are chosen")
_said = partial(option, group="what is said")
_embed = partial(option, False, strategies=("embed",))
_beam, _draw = partial(_decoding, strategies=("beam",)), partial(_decoding, strategies=("sample",))


@dataclass(frozen=True)
class DecodeOptions:
    """How captions are chosen from the decoder's probabilities.

    Raises OptionError for values out of range and for options that contradict each other.
    """

    strategy: str = _decoding(
        "beam",
        "greedy takes the likeliest word, sample draws one, beam follows several beginnings",
        choices=("greedy", "sample", "beam"),
    )
    beam_size: int = _beam(3, "unfinished captions that a beam follows", low=1, high=100)
    length_penalty: float = _beam(
        0.7, "a beam ranks by log-probability / length^X; 0 favours short ones", low=0.0, high=3.0
    )
    temperature: float = _draw(1.0, "below 1 draws likely words more often, above 1 less often", low=0.01, high=10.0)
    top_k: int = _draw(0, "draw from the k most likely words only; 0: from all", low=0)
    top_p: float = _draw(1.0, "draw from the fewest words that make up this probability", low=0.01, high=1.0)
    num_captions: int = _decoding(
        1, "captions per picture: the best of a beam, or draws", low=1, high=100_000, strategies=("sample", "beam")
    )
    min_length: int = _decoding(0, "fewest words in a caption", low=0, high=200)
    max_length: int = _decoding(20, "most words in a caption", low=1, high=200)
    evidence: float | None = _decoding(
        None,
        "weight of words found in the picture, beside the decoder; 0: none",
        kind=float,
        unset="best in validation",
        low=0.0,
        high=5.0,
    )
    no_repeat_ngram: int = _decoding(3, "never repeat a sequence of n words in a caption; 0: allowed", low=0, high=20)
    allow_stutter: bool = _decoding(False, "write 'a red jacket and a red jacket' where the model would")
    people: str = _decoding(
        "written", "neutral: person and child instead of man, woman, boy and girl", choices=("written", "neutral")
    )
    avoid: str = _decoding("", "words that no caption may have, separated by commas")
    require: str = _beam("", "words that every caption must have, separated by commas, three at most")
    unsure: str = _said(
        "write", "what becomes of captions that are not sure: write, mark with 'May show', or skip", choices=UNSURE
    )
    min_confidence: float | None = _said(
        None, "least probability that a caption is right", kind=float, unset="where 7 of 10 are", low=0.0, high=1.0
    )
    min_familiar: float | None = _said(
        None,
        "least probability that a picture is of a known kind",
        kind=float,
        unset="where 24 of 25 are",
        low=0.0,
        high=1.0,
    )
    tags: int = _said(0, "words for each picture beside its caption, at most; 0: none", low=0, high=100)
    # Every strategy accepts a seed, so that a script may always pass one.
    seed: int = _decoding(0, "the same seed draws the same captions", low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        check_ranges(self)
        used = self.used()
        for spec in option_specs(type(self)):
            if spec.name not in used and getattr(self, spec.name) != spec.default:
                remedy = f"choose strategy {' or '.join(spec.strategies)}, or leave {spec.name} ({spec.flag}) out"
                raise OptionError(f"{spec.name} has no effect with strategy {self.strategy}: {remedy}")
        size, wanted, least, most = self.beam_size, self.num_captions, self.min_length, self.max_length
        if self.strategy == "beam" and wanted > size:
            remedy = f"set beam_size (--beam-size) to at least {wanted}"
            raise OptionError(f"a beam of {size} cannot give {wanted} captions: {remedy}")
        if least > most:
            remedy = f"set max_length (--max-length) to at least {least}, or min_length (--min-length) lower"
            raise OptionError(f"min_length {least} is more than max_length {most}: {remedy}")

    def used(self) -> dict[str, Any]:
        """The options that this strategy uses, by name: a report says with them how captions were made."""
        return {
            spec.name: getattr(self, spec.name)
            for spec in option_specs(type(self))
            if not spec.strategies or self.strategy in spec.strategies
        }


@dataclass(frozen=True)
class MetadataOptions:
    """How captions go into XMP sidecar files and into pictures. Raises OptionError for an impossible value."""

    xmp_name: str = option(
        "full",
        "of XMP sidecars: full (photo.jpg.xmp) or stem (photo.xmp), where none is there yet",
        choices=("full", "stem"),
        strategies=("xmp",),
    )
    legacy: bool = _embed("with embed: also fill IPTC and EXIF where there is nothing in them, in JPEG and TIFF")
    backup: bool = _embed("with embed: keep the picture as it was, as photo.jpg_original")
    keep_time: bool = _embed("with embed: keep the picture's modification time")
    overwrite_edited: bool = option(
        False, "also replace captions that people wrote or changed, which loses them", strategies=("xmp", "embed")
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class ServeOptions:
    """How much a server takes at once. Raises OptionError for an impossible value."""

    queue: int = option(64, "requests at a time; what comes beyond is refused with status 429", low=1, high=10_000)
    max_mb: float = option(32.0, "megabytes of a request, at most", low=0.001, high=500.0)
    max_megapixels: float = option(100.0, "million pixels of a picture, at most", low=0.001, high=200.0)
    max_pictures: int = option(32, "pictures of a request, at most", low=1, high=1000)
    wait_ms: float = option(
        5.0, "milliseconds that a picture waits for others that are being read, at most", low=0.0, high=1000.0
    )
    allow_fetch: bool = option(False, "fetch pictures from public addresses that requests name")

    def __post_init__(self) -> None:
        check_ranges(self)


def parse_options(options: type, given: Mapping[str, Any]) -> Any:
    """An options object from the values in `given` that it declares; the others keep their defaults."""
    names = {spec.name for spec in option_specs(options)}
    return options(**{name: value for name, value in given.items() if name in names})
