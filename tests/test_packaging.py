"""The wheel outside the clone, what an installation without extras can do, and the first command of a clone."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import draw_picture

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
