"""Contestants as processes of their own that take turns, one round each: a busy machine slows all of them alike."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def take_turns(commands: Mapping[str, list[str]], rounds: int, hello: str = "") -> dict[str, list[Any]]:
    """What each contestant answers in each of the rounds, by name.

    `commands` are arguments for Python, whose process calls `answer_rounds`; with `hello`, it is sent that line first.
    A first round, in which some are still getting ready, does not count.
    """
    processes = {
        name: subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name, command in commands.items()
    }
    answers: dict[str, list[Any]] = {name: [] for name in processes}
    if hello:
        for process in processes.values():
            print(hello, file=process.stdin, flush=True)
    for _ in range(rounds + 1):
        for name, process in processes.items():
            assert process.stdin is not None
            assert process.stdout is not None
            print(file=process.stdin, flush=True)
            answers[name].append(json.loads(process.stdout.readline()))
    for process in processes.values():
        process.communicate()
    return {name: values[1:] for name, values in answers.items()}


def answer_rounds(one_round: Callable[[], Any]) -> None:
    """A contestant's side: a round for each line of stdin, answered by what it returns, in JSON."""
    for _ in sys.stdin:
        print(json.dumps(one_round()), flush=True)


def paired(one: Iterable[float], other: Iterable[float]) -> float:
    """The median over rounds of one / other."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))
