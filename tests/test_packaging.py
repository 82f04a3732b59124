"""The wheel, outside the clone."""

import os
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
