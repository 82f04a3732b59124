"""Full disks, disks that may only be read, limits on files: what was there stays, and a message says what is wrong."""

from __future__ import annotations

import ast
import contextlib
import errno
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import draw_picture

from captioner.data.shapes import make_shapes
from captioner.files import replacing
from captioner.network.checkpoint import Checkpoint, save_checkpoint
from captioner.training.calibration import Calibration
from captioner.training.folder import Standing, save_state
from captioner.training.records import write_curves, write_metrics, write_reliability, write_samples

PACKAGE = Path(__file__).parent.parent.parent / "captioner"
Command = Callable[..., tuple[int, str, str]]
ROW: dict[str, Any] = {
    **{"epoch": 1, "stage": "decoder", "train_loss": 2.0, "loss": 2.0, "cider": 1.0, "bleu_4": 1.0},
    "samples": ["a dog"],
}
CALIBRATION = Calibration((0.5,), (0.5,), (1.0,), 0.0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB, where the one who runs the tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a disk but for some bytes, with a file."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - leave)
    return filler


def _text(path: Path) -> None:
    with replacing(path) as file:
        file.write("new " * 10_000)


WRITERS: dict[str, Callable[[Path, Checkpoint], object]] = {
    "text": lambda path, _: _text(path),
    "checkpoint": save_checkpoint,
    "metrics": lambda path, _: write_metrics(path, [ROW] * 1000),
    "curves": lambda path, _: write_curves(path, [ROW]),
    "reliability": lambda path, _: write_reliability(path, CALIBRATION, CALIBRATION),
    "samples": lambda path, _: write_samples(path, [("a.jpg", "data:" + "x" * 9000, "a dog")], [ROW]),
    "state.safetensors": lambda path, _: save_state(path.parent, Standing("x"), {"a": torch.zeros(9999)}),
}


@pytest.mark.parametrize("trouble", ["full", "read-only"])
@pytest.mark.parametrize("what", WRITERS)
def test_the_old_content_stays(what: str, trouble: str, disk: Path, tiny_checkpoint: Checkpoint) -> None:
    path = disk / what
    path.write_text("old")
    if trouble == "full":
        fill(disk)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(OSError, match=what) as caught:
        WRITERS[what](path, tiny_checkpoint)
    assert caught.value.errno == (errno.ENOSPC if trouble == "full" else errno.EROFS)
    assert path.read_text() == "old"
    assert {file.name for file in disk.iterdir()} <= {what, "filler"}


def test_captioning_onto_a_disk_that_becomes_full_goes_on_when_there_is_room(
    command: Command, disk: Path, tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(60):
        draw_picture(index).save(pictures / f"{index:02}.png")
    arguments = ("caption", pictures, "--format", "jsonl", "--batch-size", 2, "--checkpoint", tiny_checkpoint_file)
    arguments += ("--overwrite",)
    assert command(*arguments, "--output", tmp_path / "whole")[0] == 0
    output = disk / "out"
    output.write_text("old")
    filler = fill(disk, leave=4096)
    status, _, errors = command(*arguments, "--output", output)
    assert status == 2
    assert errors.splitlines()[-1] == f"captioner: error: {output}.journal: No space left on device"
    assert output.read_text() == "old"
    filler.unlink()
    status, _, errors = command(*arguments, "--output", output, "--resume")
    assert status == 0
    assert "captioned before: " in errors
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()


def test_captioning_into_a_folder_that_may_only_be_read(
    command: Command, disk: Path, tiny_checkpoint_file: Path, pictures: list[Path]
) -> None:
    output = disk / "out"
    output.write_text("old")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    status, _, errors = command(
        "caption", pictures[0], "--output", output, "--overwrite", "--checkpoint", tiny_checkpoint_file
    )
    assert status == 2
    assert "Read-only file system" in errors.splitlines()[-1]
    assert output.read_text() == "old"


def test_a_folder_that_may_only_be_read_and_has_all_its_captions(command: Command, disk: Path) -> None:
    (disk / "a.jpg").touch()
    (disk / "a.txt").write_text("mine")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert command("caption", disk, "--format", "sidecar")[0] == 0
    status, _, errors = command("caption", disk, "--format", "sidecar", "--overwrite", "--dry-run")
    assert status == 2
    assert "Read-only file system" in errors


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
def test_a_limit_on_the_size_of_files_is_like_a_full_disk(
    command: Command, tiny_checkpoint_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        status, _, errors = command(
            *("caption", pictures[0].parent, "--format", "jsonl", "--batch-size", 2, "--output", output, "--overwrite"),
            *("--checkpoint", tiny_checkpoint_file),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2
    assert errors.splitlines()[-1] == f"captioner: error: {output}.journal: File too large"
    assert output.read_text() == "old"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_an_error(pictures: list[Path], tiny_checkpoint_file: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "captioner",
        "caption",
        str(pictures[0]),
        "--checkpoint",
        str(tiny_checkpoint_file),
    ]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "captioner: error: No space left on device\n"


def test_a_set_of_shapes_that_does_not_fit_leaves_no_half_pictures(disk: Path) -> None:
    from PIL import Image

    with pytest.raises(OSError, match="No space left"):
        make_shapes(disk / "shapes", 2000, side=200)
    for path in (disk / "shapes/images").iterdir():
        Image.open(path).load()


def test_nothing_in_the_package_writes_files_in_any_other_way() -> None:
    """Only `files.replacing`, the journal, the index and the caches of features and of alternative texts, whose
    records are checked, open files to write; the temporary file of a worker, lists in temporary files without a name,
    and the members of a book inside `files.replacing`.
    """
    writing = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
            modes = [a.value for a in given if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            unknown = any(isinstance(a, ast.Name) and a.id == "mode" for a in given)
            if name in ("write_text", "write_bytes", "touch", "connect") or (
                name in ("open", "fdopen") and (unknown or any(set(mode) & set("wax+") for mode in modes))
            ):
                writing.add(file.relative_to(PACKAGE).as_posix())
    assert writing == {
        *("files.py", "bulk/journal.py", "training/features.py", "bulk/worker.py", "bulk/alt.py"),
        *("documents/document.py", "bulk/index.py", "bulk/on_disk.py"),
    }
