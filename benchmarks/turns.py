"""Run contestants as processes of their own that take turns, one round each.

Because they take turns, a busy machine slows all of them alike.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def take_turns(commands: Mapping[str, list[str]], rounds: int, hello: str = "") -> dict[str, list[Any]]:
    """Let contestants take turns. Returns, by name, what each of them answered in each round.

    `commands` are arguments for Python. Each process has to call `answer_rounds`. If `hello` is given, the process is
    sent that line first. An extra first round does not count, because some contestants are still getting ready in it.
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
    """Run one round for each line of stdin and print its result as JSON. This is the contestant's side of a round."""
    for _ in sys.stdin:
        print(json.dumps(one_round()), flush=True)


def paired(one: Iterable[float], other: Iterable[float]) -> float:
    """Return the median over the rounds of one / other."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))
