"""captioner watch: its flags, and the files that start it with the system."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from captioner.cli.main import _parser

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_it_has_the_options_of_caption() -> None:
    given = ["watch", "photos", "-r", "-f", "embed", "--keep-time", "--people", "neutral", "--nice", "5", "--poll", "9"]
    args = _parser().parse_args(given)
    assert (args.paths, args.format, args.keep_time, args.people) == (["photos"], "embed", True, "neutral")
    assert (args.nice, args.poll, args.settle, args.batch_size) == (5, 9.0, 2.0, 32)


def test_the_unit_of_systemd_starts_it() -> None:
    unit = RawConfigParser()
    unit.read(DOCS / "captioner-watch.service")
    program, *arguments = unit["Service"]["ExecStart"].split()
    assert program.endswith("/bin/captioner")
    assert _parser().parse_args(arguments).paths == ["%h/Pictures"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_systemd_has_no_complaint(tmp_path: Path) -> None:
    text = (DOCS / "captioner-watch.service").read_text().replace("%h/captioner/.venv/bin/captioner", "/bin/true")
    (file := tmp_path / "captioner-watch.service").write_text(text)
    command = ["systemd-analyze", "--user", "--man=no", "verify", str(file)]
    settings = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert "captioner-watch.service:" not in done.stderr


def test_the_agent_of_launchd_starts_it() -> None:
    agent = plistlib.loads((DOCS / "captioner-watch.plist").read_bytes())
    program, *arguments = agent["ProgramArguments"]
    assert program.endswith("/bin/captioner")
    assert _parser().parse_args(arguments).paths == ["/Users/me/Pictures"]
    assert agent["RunAtLoad"]
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
