"""The sample command: sentences without a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

import captioner

Command: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "options", "prompt"),
    [
        ([], captioner.DecodeOptions("sample"), ""),
        (["--num-captions", "4", "--seed", "2"], captioner.DecodeOptions("sample", num_captions=4, seed=2), ""),
        (["--temperature", "0.3", "--prompt", "a dog"], captioner.DecodeOptions("sample", temperature=0.3), "a dog"),
        (["--strategy", "beam", "--num-captions", "3"], captioner.DecodeOptions(num_captions=3), ""),
        (["--strategy", "greedy", "--prompt", "The"], captioner.DecodeOptions("greedy"), "The"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_sentence_a_line_the_same_as_in_python(
    command: Command, tiny_checkpoint_file: Path, arguments: list[str], options: captioner.DecodeOptions, prompt: str
) -> None:
    status, output, errors = command("sample", "--checkpoint", tiny_checkpoint_file, *arguments)
    expected = captioner.load(tiny_checkpoint_file).sample(options, prompt=prompt)
    assert output.splitlines() == [caption.text for caption in expected]
    assert (status, errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "a dogg"], "'dogg' (did you mean 'dog'?)"),
        (["--prompt", "a dog", "--max-length", "2"], "set max_length (--max-length) to at least 3"),
        (["--beam-size", "5"], "beam_size has no effect with strategy sample"),
        (["--checkpoint", "none"], "no such checkpoint"),
    ],
)
def test_wrong_usage_gets_one_clear_line_and_status_2(
    command: Command, tiny_checkpoint_file: Path, arguments: list[str], message: str
) -> None:
    status, output, errors = command("sample", "--checkpoint", tiny_checkpoint_file, *arguments)
    assert (status, output, len(errors.splitlines())) == (2, "", 1)
    assert message in errors


def test_help_says_that_sentences_are_drawn(command: Command) -> None:
    status, output, _ = command("sample", "--help")
    assert status == 0
    assert "[sample]" in output
    assert "[beam]" in command("caption", "--help")[1]
