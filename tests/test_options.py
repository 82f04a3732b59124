"""Options: every impossible or contradictory value is refused where it enters, in words a user can act on."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import pytest

from captioner.cli.arguments import Parser, add_options
from captioner.errors import CaptionerError, OptionError
from captioner.options import DecodeOptions, OptionSpec, check_ranges, option, option_specs, parse_options
from captioner.training.config import TrainConfig

SPECS = [pytest.param(kind, spec, id=spec.name) for kind in (DecodeOptions, TrainConfig) for spec in option_specs(kind)]
ALWAYS = {
    *("strategy", "min_length", "max_length", "evidence", "no_repeat_ngram", "allow_stutter", "seed"),
    *("people", "avoid", "unsure", "min_confidence", "min_familiar", "tags"),
}
USED_BY = {
    "greedy": ALWAYS,
    "sample": ALWAYS | {"temperature", "top_k", "top_p", "num_captions"},
    "beam": ALWAYS | {"beam_size", "length_penalty", "num_captions", "require"},
}
UNUSED = [
    (strategy, name) for strategy, used in USED_BY.items() for name in {*USED_BY["sample"], *USED_BY["beam"]} - used
]


def make(kind: type, spec: OptionSpec, value: Any) -> Any:
    """Options with one value given, and whatever else it needs so as not to contradict a default."""
    others: dict[str, Any] = {"strategy": spec.strategies[0]} if spec.strategies else {}
    if spec.name == "min_length":
        others["max_length"] = 200
    return kind(**{**others, spec.name: value})


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("beam_size", [0, -1, 101]),
        ("length_penalty", [-0.1, 3.1, math.inf]),
        ("temperature", [0.0, -1.0, 10.1, math.inf]),
        ("top_k", [-1]),
        ("top_p", [0.0, -0.5, 1.01]),
        ("num_captions", [0, -1, 100_001]),
        ("min_length", [-1, 201]),
        ("max_length", [0, 201]),
        ("no_repeat_ngram", [-1, 21]),
        ("seed", [-1, 2**63]),
    ],
)
def test_values_out_of_range_are_refused(name: str, bad: list[Any]) -> None:
    spec = next(spec for spec in option_specs(DecodeOptions) if spec.name == name)
    for value in bad:
        with pytest.raises(OptionError, match=rf"^{name} must be at (least|most) \S+, not {value!r}$"):
            make(DecodeOptions, spec, value)


@pytest.mark.parametrize(("kind", "spec"), SPECS)
def test_the_ends_of_a_range_belong_to_it(kind: type, spec: OptionSpec) -> None:
    for bound, outside in ((spec.low, -1), (spec.high, 1)):
        if bound is not None:
            assert getattr(make(kind, spec, spec.kind(bound)), spec.name) == bound
            with pytest.raises(OptionError, match=f"^{spec.name} must be at"):
                make(kind, spec, spec.kind(bound) + outside)


@pytest.mark.parametrize(("kind", "spec"), SPECS)
def test_values_of_another_type_are_refused(kind: type, spec: OptionSpec) -> None:
    wrong: dict[type, list[Any]] = {
        int: [True, 2.0, "2", None, math.nan],
        float: [True, "0.5", None],
        str: [1, None, True, ["greedy"]],
        bool: [1, None, "yes"],
    }
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    for value in wrong[spec.kind]:
        if value is None and spec.default is None:
            continue
        with pytest.raises(OptionError, match=f"^{spec.name} must be {words[spec.kind]}, not "):
            make(kind, spec, value)


@pytest.mark.parametrize(("kind", "spec"), [p for p in SPECS if p.values[1].kind is float])
def test_nan_is_refused_and_a_whole_number_will_do(kind: type, spec: OptionSpec) -> None:
    with pytest.raises(OptionError, match=f"^{spec.name} must be .* not nan"):
        make(kind, spec, math.nan)
    whole = math.ceil(spec.low or 0.0) if spec.high is None or spec.high >= 1 else 0
    assert getattr(make(kind, spec, whole), spec.name) == whole


def test_an_unknown_choice_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"^strategy must be one of greedy, sample, beam, not 'Beam'$"):
        DecodeOptions(strategy="Beam")


@pytest.mark.parametrize(("strategy", "name"), sorted(UNUSED))
def test_an_option_that_the_strategy_does_not_use_is_refused(strategy: str, name: str) -> None:
    default = getattr(DecodeOptions(), name)
    users = [user for user in USED_BY if name in USED_BY[user]]
    with pytest.raises(OptionError) as caught:
        DecodeOptions(strategy=strategy, **{name: 2 if isinstance(default, int) else "dog" if default == "" else 0.5})
    assert str(caught.value) == (
        f"{name} has no effect with strategy {strategy}: choose strategy {' or '.join(users)}, or leave {name} "
        f"(--{name.replace('_', '-')}) out"
    )
    assert DecodeOptions(strategy=strategy, **{name: default}) == DecodeOptions(strategy=strategy)


@pytest.mark.parametrize("strategy", USED_BY)
def test_a_report_names_what_the_strategy_uses(strategy: str) -> None:
    changed = DecodeOptions(strategy=strategy, max_length=7).used()
    assert set(changed) == USED_BY[strategy]
    assert changed["max_length"] == 7


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (
            DecodeOptions,
            {"beam_size": 2, "num_captions": 3},
            r"a beam of 2 cannot give 3 .* set beam_size \(--beam-size\) to at least 3",
        ),
        (
            DecodeOptions,
            {"min_length": 5, "max_length": 4},
            r"min_length 5 .* max_length 4: set max_length \(--max-length\) to at least 5",
        ),
        (DecodeOptions, {"min_length": 21}, r"min_length 21 .* max_length 20: set max_length .* to at least 21"),
        (
            TrainConfig,
            {"epochs": 0, "finetune_epochs": 0, "scst_epochs": 0, "match_epochs": 0},
            "all stages have 0 epochs.*--epochs to at least 1",
        ),
        (TrainConfig, {"image_size": 31}, "image_size must be 0 or at least 32, not 31"),
    ],
)
def test_a_contradiction_is_refused_with_its_remedy(kind: type, given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        kind(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"beam_size": 3, "num_captions": 3},
        {"min_length": 4, "max_length": 4},
        {"strategy": "sample", "num_captions": 50},  # the beam's limit is the beam's
        {"strategy": "greedy", "seed": 7},  # a script that always passes its seed
    ],
)
def test_what_only_looks_like_a_contradiction_is_accepted(given: dict[str, Any]) -> None:
    assert DecodeOptions(**given).seed == given.get("seed", 0)


@pytest.mark.parametrize("kind", [DecodeOptions, TrainConfig])
def test_options_are_frozen(kind: type) -> None:
    options = kind()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.seed = 1
    with pytest.raises(OptionError):  # nor does a copy get past the checks
        dataclasses.replace(options, seed=-1)


@pytest.mark.parametrize("kind", [DecodeOptions, TrainConfig])
def test_every_field_is_declared_with_a_help_text(kind: type) -> None:
    specs = list(option_specs(kind))
    assert [spec.name for spec in specs] == [field.name for field in dataclasses.fields(kind)]
    assert all(spec.help.strip() and spec.flag == "--" + spec.name.replace("_", "-") for spec in specs)
    assert kind(**{spec.name: spec.default for spec in specs}) == kind()


@dataclasses.dataclass(frozen=True)
class Steps:
    """Options of which one has no default of its own."""

    epochs: int | None = option(None, "rounds", kind=int, unset="as many as it takes", group="how long", low=1)
    rate: float = option(0.5, "how fast", group="how fast")
    longest: int = option(9, "most rounds", group="how long")
    quiet: bool = option(False, "say nothing")

    def __post_init__(self) -> None:
        check_ranges(self)


def test_none_is_accepted_only_where_it_is_the_default() -> None:
    assert Steps().epochs is None
    assert Steps(epochs=3).epochs == 3
    with pytest.raises(OptionError, match=r"^epochs must be a whole number, not 'many'$"):
        Steps(epochs="many")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"^epochs must be at least 1, not 0$"):
        Steps(epochs=0)
    with pytest.raises(OptionError, match=r"^longest must be a whole number, not None$"):
        Steps(longest=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{}, {"kind": int}, {"unset": "chosen for you"}], ids=str)
def test_a_default_of_none_must_be_explained(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="needs kind= and unset="):
        option(None, "rounds", **given)


def test_flags_stand_under_the_headings_of_their_options() -> None:
    parser = Parser()
    add_options(parser, Steps)
    help = [" ".join(section.split()) for section in parser.format_help().split("\n\n")]
    assert "--quiet" in help[1]
    assert help[2] == "how long: --epochs N rounds [as many as it takes] --longest N most rounds [9]"
    assert help[3] == "how fast: --rate X how fast [0.5]"
    assert parse_options(Steps, vars(parser.parse_args([]))) == Steps()
    assert parse_options(Steps, vars(parser.parse_args(["--epochs", "2", "--quiet"]))) == Steps(epochs=2, quiet=True)


def test_a_group_keeps_all_flags_that_are_added_to_it() -> None:
    parser = Parser()
    add_options(parser.add_argument_group("some"), Steps, only=("longest", "rate"), defaults={"rate": 2.0})
    *_, section = parser.format_help().split("\n\n")
    assert [line.split()[0] for line in section.splitlines()] == ["some:", "--rate", "--longest"]
    assert "[2]" in section


def test_parse_options_takes_what_is_declared_and_leaves_the_rest() -> None:
    given = {"beam_size": 5, "checkpoint": "x.safetensors", "max_length": 9}
    assert parse_options(DecodeOptions, given) == DecodeOptions(beam_size=5, max_length=9)


def test_an_option_error_is_meant_for_the_user() -> None:
    assert issubclass(OptionError, CaptionerError)


def test_options_load_without_torch() -> None:
    """The command line shows its help from them, and must not take seconds to do so."""
    code = "import sys, captioner, captioner.options; sys.exit(bool({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
