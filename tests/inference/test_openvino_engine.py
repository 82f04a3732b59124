"""Exporting the encoder for OpenVINO, and captioning with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
from conftest import draw_picture

import captioner
from captioner.errors import DeviceError, InputError, OptionError, OutputError
from captioner.inference.openvino_engine import OpenVinoEncoder, encoder_file, export_encoder
from captioner.network.header import find_checkpoint

Command: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint_file: Path) -> Path:
    """The copy of the tiny checkpoint beside its exported encoder."""
    pytest.importorskip("nncf")
    pytest.importorskip("openvino")

    folder = tmp_path_factory.mktemp("exported")
    return export_encoder(tiny_checkpoint_file, [draw_picture(index) for index in range(24)], folder / "new")


def test_without_an_export_it_says_how_to_make_one(tiny_checkpoint_file: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(DeviceError, match="captioner export"):
        captioner.load(tiny_checkpoint_file, engine="openvino")


def test_without_the_extra_it_says_how_to_install_it(
    tiny_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # makes importing it fail
    with pytest.raises(DeviceError, match=r"openvino is not installed: pip install .*\[openvino\]"):
        captioner.load(tiny_checkpoint_file, engine="openvino")


def test_another_engine_is_refused(tiny_checkpoint_file: Path) -> None:
    with pytest.raises(OptionError, match="engine must be one of torch, openvino"):
        captioner.load(tiny_checkpoint_file, engine="onnxruntime")


@pytest.mark.slow
class TestExported:
    def test_features_are_nearly_those_of_the_checkpoint(self, tmp_path: Path) -> None:
        pytest.importorskip("nncf")
        pictures = [draw_picture(index) for index in range(24)]
        exported = export_encoder(find_checkpoint(), pictures, tmp_path)  # 8 bits are too few for random weights
        found = captioner.load(exported, precision="float32", engine="openvino").encode(pictures)
        wanted = captioner.load(exported, device="cpu", precision="float32").encode(pictures)
        assert found.dtype == torch.float32
        assert 0.0 < (found - wanted).norm() < 0.3 * wanted.norm()

    def test_a_folder_is_captioned_and_what_cannot_be_read_is_named(
        self, exported: Path, pictures: list[Path], command: Command
    ) -> None:
        status, out, err = command(
            "caption", *map(str, pictures), "none.jpg", "--engine", "openvino", "--checkpoint", str(exported)
        )
        assert status == 1
        assert [line.split("\t")[0] for line in out.splitlines()] == list(map(str, pictures))
        assert "none.jpg: no such file" in err

    def test_the_command_prints_the_file_and_what_it_does_on_stderr(
        self, tiny_checkpoint_file: Path, pictures: list[Path], command: Command, tmp_path: Path
    ) -> None:
        given = {"--images": pictures[0].parent, "--output": tmp_path / "out", "--checkpoint": tiny_checkpoint_file}
        status, out, err = command("export", *(str(part) for pair in given.items() for part in pair))
        assert (status, out) == (0, f"{tmp_path / 'out' / tiny_checkpoint_file.name}\n")
        assert "use it with --engine openvino" in err
        assert "INFO" not in err

    def test_another_checkpoint_is_refused(self, exported: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.safetensors"
        other.write_bytes(exported.read_bytes() + b" ")
        for suffix in (".xml", ".bin"):
            shutil.copy(exported.with_suffix(suffix), other.with_suffix(suffix))
        with pytest.raises(DeviceError, match="is not the encoder of"):
            OpenVinoEncoder(other, 1, "float32")

    def test_damage_is_named(self, exported: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copy(exported, tmp_path))
        encoder_file(copy).write_text("<net")
        with pytest.raises(DeviceError, match="damaged"):
            captioner.load(copy, engine="openvino")

    def test_a_folder_that_holds_one_is_refused(self, exported: Path) -> None:
        with pytest.raises(OutputError, match="is there already"):
            export_encoder(exported, [], exported.parent)

    def test_where_no_picture_can_be_read_it_says_why(self, exported: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="nowhere: no such file"):
            export_encoder(exported, [tmp_path / "nowhere"], tmp_path / "out")


@pytest.mark.slow
def test_nothing_is_reported_to_anyone(tiny_checkpoint_file: Path, pictures: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    program = """
import sys
from pathlib import Path
import captioner
from captioner.inference.openvino_engine import export_encoder

checkpoint, output, *pictures = sys.argv[1:]
copy = export_encoder(Path(checkpoint), pictures, Path(output))
print(captioner.load(copy, engine="openvino").caption(pictures[0]).text)
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
"""
    arguments = [str(path) for path in (tiny_checkpoint_file, tmp_path / "out", *pictures)]
    # On processors with AMX, OpenVINO itself crashes when it runs this tiny network in 8 bits: docs/captioning.md.
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
