"""The files of containers and services. Where there is no engine, the Dockerfile's own steps run in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from captioner.cli.main import _parser
from server.running import base64_of, jpeg

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def steps() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its arguments on one line."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text())
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def last(instruction: str) -> str:
    return [rest for word, rest in steps() if word == instruction][-1]


def test_the_image_runs_as_nobody_and_tells_whether_it_answers() -> None:
    assert last("USER") == "10001:10001"
    assert "/health" in last("HEALTHCHECK")
    args = _parser().parse_args(json.loads(last("CMD")))
    assert (args.host, args.port) == ("0.0.0.0", int(last("EXPOSE")))
    assert last("ENTRYPOINT") == '["captioner"]'


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    copied = [name for word, rest in steps() if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == allowed
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("file", sorted(DOCS.glob("compose.*.yaml")), ids=lambda file: file.name)
def test_services_of_captioner_are_locked_up_and_their_commands_are_ours(file: Path) -> None:
    services: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())["services"]
    own = [service for service in services.values() if service.get("build") == ".."]
    assert own
    for service in own:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        _parser().parse_args(service.get("command", json.loads(last("CMD"))))


def test_photoprism_is_told_where_captioner_answers() -> None:
    compose = yaml.safe_load((DOCS / "compose.photoprism.yaml").read_text())["services"]
    address = compose["photoprism"]["environment"]["OLLAMA_BASE_URL"]
    models = yaml.safe_load((DOCS / "photoprism-vision.yml").read_text())["Models"]
    assert {model["Service"]["Uri"] for model in models} == {f"{address}/api/generate"}
    assert {model["Model"] for model in models} == {"captioner"}
    assert address == f"http://{compose['captioner']['networks']['default']['aliases'][0]}:{last('EXPOSE')}"


def test_the_service_of_systemd_starts_our_command(tmp_path: Path) -> None:
    unit = (DOCS / "captioner-serve.service").read_text()
    command = re.search(r"(?m)^ExecStart=\S+/captioner (.*)$", unit)
    assert command
    _parser().parse_args(command[1].split())
    if systemd := shutil.which("systemd-analyze"):
        (tmp_path / "captioner-serve.service").write_text(unit.replace("%h/captioner/.venv/bin/captioner", "/bin/true"))
        check = [systemd, "verify", "--user", str(tmp_path / "captioner-serve.service")]
        done = subprocess.run(
            check, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_dockerfile_s_own_steps_make_a_server_that_writes_nothing(tmp_path: Path) -> None:
    """In a folder instead of an image, and with this Python instead of the image's."""
    root = tmp_path / "root"
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(Path.home())}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "XDG_"))}
    folder = tmp_path

    def inside(text: str) -> str:
        """A text of the Dockerfile with the places of the image in our folder."""
        return re.sub(r"(?<![\w.])/(opt|source|photos)\b", rf"{root}/\1", text)

    for word, rest in steps():
        if word == "WORKDIR":
            folder = Path(inside(rest))
            folder.mkdir(parents=True, exist_ok=True)
        elif word == "COPY" and "--from" not in rest:
            *names, target = rest.split()
            for name in names:
                place = folder / target / (name if target == "./" else "")
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, place)
        elif word == "ENV":
            given = dict(pair.split("=", 1) for pair in rest.split())
            given.pop("PIP_EXTRA_INDEX_URL", None)  # which need not be reached from here
            environment |= {name: inside(value).replace("$PATH", environment["PATH"]) for name, value in given.items()}
        elif word == "RUN":
            done = subprocess.run(inside(rest), shell=True, cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{rest}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert "flickr8k" in done.stdout

    def files() -> set[tuple[Path, int]]:
        return {(path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}

    shutil.rmtree(root / "source")
    (folder / "a.jpg").write_bytes(jpeg())
    before = files()
    entry = json.loads(last("ENTRYPOINT"))
    caption = subprocess.run([*entry, "caption", "a.jpg"], cwd=folder, env=environment, capture_output=True, text=True)
    assert caption.stdout.startswith("a.jpg\t"), caption.stderr
    command = [*entry, *json.loads(last("CMD")), "--port", "0"]
    server = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr
        port = server.stderr.readline().split("serving at http://0.0.0.0:")[1].split(",")[0]
        healthy = json.loads(last("HEALTHCHECK").partition("CMD ")[2].replace("11434", port))
        subprocess.run(healthy, env=environment, check=True)
        body = {"model": "captioner", "images": [base64_of(jpeg())], "stream": False}
        answer = httpx.post(f"http://127.0.0.1:{port}/api/generate", json=body, timeout=120).json()
        assert answer["response"] == caption.stdout.strip().partition("\t")[2]
        server.terminate()
        assert server.wait(120) == 0
    finally:
        server.kill()
    assert files() == before
