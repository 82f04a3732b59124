"""The wheel outside the clone, what an installation without extras can do, and the first command of a clone."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import draw_picture

import captioner
from captioner import errors
from captioner.network.header import find_checkpoint

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_an_installed_wheel_finds_the_shipped_checkpoint(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("captioner-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        data = {path.relative_to(ROOT).as_posix() for path in (ROOT / "captioner").rglob("*.txt")}
        assert "captioner/training/imagenet_names.txt" in data
        assert data <= set(archive.namelist())
        archive.extractall(site)
    draw_picture(0).save(tmp_path / "a.png")
    # The unpacked wheel comes before the clone, which the environment of the tests has installed.
    code = (
        "import captioner.network.header as c, captioner.cli.main as cli, sys;"
        f"assert c.find_checkpoint().is_relative_to({str(site)!r}), c.find_checkpoint();"
        "sys.exit(cli.main(['caption', 'a.png']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a.png\t")


def test_captioning_and_evaluating_need_no_extra(pictures: list[Path], tmp_path: Path) -> None:
    lines = [f"{path.name}#{number}\tA dog runs\n" for path in pictures for number in range(2)]
    (tmp_path / "captions.token.txt").write_text("".join(lines))
    data = ["--captions", "captions.token.txt", "--images", str(pictures[0].parent), "--json", "scores.json"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["streamlit", "matplotlib", "jinja2", "markupsafe", "pandas", "ray"]))
from captioner.cli.main import main
assert main(["caption", {str(pictures[0])!r}, "-f", "csv", "-o", "captions.csv"]) == 0
assert main(["evaluate", *{data!r}]) == 0
assert main(["app"]) == 2
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "scores.json").read_text())["images"] == 7
    assert (tmp_path / "captions.csv").read_text().count("\n") == 2
    app = done.stderr.splitlines()[-1]
    assert app.startswith('captioner: error: the page needs Streamlit: pip install "captioner[page]" (in a clone: ')


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    ("images", "arguments"),
    [
        ("", []),
        ("My Photos", ["My Photos"]),
        ("It's.jpg", ["It's.jpg"]),
        ("a.jpg My", ["a.jpg", "My"]),
        ("*.jpg", ["It's.jpg", "a.jpg"]),
    ],
)
def test_make_demo_takes_paths_with_spaces_and_says_what_is_next(
    tmp_path: Path, images: str, arguments: list[str]
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "My Photos").mkdir()
    for name in ("a.jpg", "It's.jpg"):
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nfor each; do echo "$each"; done\n')
    python.chmod(0o755)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv" / "installed").touch()
    command = ["make", "--no-print-directory", "demo", f"IMAGES={images}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["-m", "captioner", "demo", *arguments]
    assert "make app" in done.stderr


def _needs(requirements: list[str]) -> dict[str, str]:
    """What is asked of each package, by its name."""
    return {re.split(r"[^\w-]", text, maxsplit=1)[0]: text for text in requirements}


def test_the_light_distribution_asks_what_the_full_one_asks() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    full, light = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"] for folder in ("", "packaging/light")
    )
    wanted = _needs(full["dependencies"])
    own = _needs(light["dependencies"])
    assert own.pop("onnxruntime") in full["optional-dependencies"]["onnx"]
    assert own == {name: wanted[name] for name in own}
    assert wanted.keys() - own.keys() == {"torch", "torchvision", "matplotlib", "streamlit"}
    assert tuple(light["optional-dependencies"]) == errors._OF_LIGHT
    for extra, packages in light["optional-dependencies"].items():
        assert packages == full["optional-dependencies"][extra]
    assert light["scripts"] == full["scripts"]


@pytest.mark.parametrize(
    ("owners", "extra", "advice"),
    [
        (["captioner-light"], "serve", 'pip install "captioner-light[serve]"'),
        (["captioner-light"], "page", 'pip uninstall captioner-light, then pip install "captioner[page]"'),
        (["captioner", "captioner-light"], "serve", 'pip install "captioner[serve]"'),
        ([], "serve", 'pip install "captioner[serve]"'),
    ],
)
def test_advice_fits_what_is_installed(
    owners: list[str], extra: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"captioner": owners} if owners else {})
    assert errors.to_install(extra).startswith(advice)


@pytest.mark.slow
def test_the_light_wheel_captions_in_an_empty_environment(tmp_path: Path) -> None:
    """As `make package-light` builds it, but from a copy of the tree, so that the clone stays as it is."""
    pytest.importorskip("onnxscript")
    for name in ("captioner", "packaging"):
        shutil.copytree(ROOT / name, tmp_path / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "LICENSE", tmp_path / "tree")
    folder = tmp_path / "tree" / "build" / "light" / find_checkpoint().stem
    captioner.export_model(None, folder, bits=8)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"CAPTIONER_CACHE": str(tmp_path / "cache")}

    def run(program: object, *arguments: object, status: int = 0) -> tuple[str, str]:
        given = [str(word) for word in (program, *arguments)]
        done = subprocess.run(given, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == status, done.stderr
        return done.stdout, done.stderr

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, tmp_path / "tree/packaging/light")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", *tmp_path.glob("captioner_light-*.whl"))
    draw_picture(0).save(tmp_path / "a.png")
    program = python.with_name("captioner")
    caption, _ = run(program, "caption", "a.png")
    assert caption == f"a.png\t{captioner.load(folder).caption(tmp_path / 'a.png').text}\n"
    assert run(program, "models")[0].startswith("flickr8k ")
    assert run(program, "find", "a dog", "a.png")[0].startswith("a.png\t")
    _, refused = run(program, "train", "--captions", "a.png", "--images", ".", "--output", "run", status=2)
    assert refused.endswith("pip uninstall captioner-light, then pip install captioner\n")
    run(python, "-c", "import torch", status=1)
