"""torchvision can be imported beside a torch that its compiled operators do not fit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.network import torchvision_compat
from captioner.network.torchvision_compat import prepare_torchvision


@pytest.fixture
def _fresh() -> Iterator[None]:
    """The answer is remembered for the whole process."""
    prepare_torchvision.cache_clear()
    yield
    prepare_torchvision.cache_clear()


def test_torchvision_can_be_imported_afterwards() -> None:
    program = """
from captioner.network.torchvision_compat import prepare_torchvision
loaded = prepare_torchvision()
assert prepare_torchvision() is loaded
prepare_torchvision.cache_clear()
assert prepare_torchvision() is loaded, "to declare everything twice is harmless"
import torch, torchvision
assert "resnet18" in torchvision.models.list_models()
if not loaded:
    # Declared, not replaced by something that would compute nonsense.
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (NotImplementedError, RuntimeError):
        pass
    else:
        raise AssertionError("nms has no implementation")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("_fresh")
def test_where_the_operators_load_nothing_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        pytest.fail("declared something")

    monkeypatch.setattr(torchvision_compat, "_operators_load", lambda package: True)
    monkeypatch.setattr(torch.library, "Library", refuse)
    assert prepare_torchvision() is True


@pytest.mark.usefixtures("_fresh")
def test_without_torchvision_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_compat.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "torchvision'):
        prepare_torchvision()


@pytest.mark.parametrize(
    ("files", "loads", "expected"),
    [
        ([], True, False),
        (["_C.so"], True, True),
        (["_C.so"], False, False),
        (["_C.cpython-311-x86_64-linux-gnu.so"], True, True),
        (["_C.pyd"], True, True),
        (["image.so"], True, False),
    ],
)
def test_whether_the_operators_load(
    files: list[str], loads: bool, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: str) -> None:
        if not loads:
            raise OSError("libcudart.so.13: cannot open shared object file")

    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(torch.ops, "load_library", load)
    assert torchvision_compat._operators_load(tmp_path) is expected
