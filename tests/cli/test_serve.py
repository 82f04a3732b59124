"""captioner serve: its flags, and what it refuses. What it does as a process is in tests/server/test_run.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captioner.cli import serve
from captioner.options import DecodeOptions, ServeOptions

Run = Callable[..., tuple[int, str, str]]


def test_flags_become_the_arguments_of_the_call(command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("captioner.server.run.serve", lambda model, **options: given.update(options) or 0)
    monkeypatch.setenv("CAPTIONER_TOKEN", "from the environment")
    flags = ("--host=0.0.0.0", "--port=80", "--root-path=/a", "--allow-host=b", "--allow-host=c", "--folder", tmp_path)
    status, out, _ = command("serve", *flags, "--queue=3", "--allow-fetch", "--prompt=a dog", "--people=neutral")
    assert (status, out) == (0, "")
    assert given.pop("ready")
    assert given == {
        **{"host": "0.0.0.0", "port": 80, "root_path": "/a", "hosts": ["b", "c"], "folder": tmp_path},
        **{"token": "from the environment", "prompt": "a dog", "options": DecodeOptions(people="neutral")},
        "limits": ServeOptions(queue=3, allow_fetch=True),
    }


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--queue", 0), "queue must be at least 1"),
        (("--max-mb", 1000), "max_mb must be at most 500"),
        (("--folder", "none"), "none: no such folder"),
        (("--root-path", "a"), "root_path (--root-path) must be like /captioner"),
        (("--port", 70_000), "cannot listen on 127.0.0.1, port 70000"),
        (("--checkpoint", "none.safetensors", "--port", 0), "none.safetensors: no such"),
        (("--top-k", 5), "top_k has no effect with strategy beam"),
    ],
)
def test_what_is_wrong_is_said(command: Run, flags: tuple[object, ...], reason: str) -> None:
    status, out, message = command("serve", *flags)
    assert (status, out, message.count("\n")) == (2, "", 1)
    assert reason in message


def test_without_the_extra_it_says_what_to_install(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    status, _, message = command("serve")
    assert status == 2
    assert 'pip install "captioner[serve]"' in message
