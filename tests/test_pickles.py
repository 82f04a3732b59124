"""No file that is opened can run code: nothing unpickles, but for tensors in one place."""

from __future__ import annotations

import ast
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import draw_picture

from captioner.data.shapes import make_shapes
from captioner.errors import TrainingError
from captioner.training.features import FeatureCache
from captioner.training.folder import load_state

ROOT = Path(__file__).parent.parent
Command = Callable[..., tuple[int, str, str]]


def sources() -> list[Path]:
    return [*(ROOT / "captioner").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"), ROOT / "app.py"]


def test_nothing_in_the_sources_unpickles_but_torch_load_of_tensors_in_one_place() -> None:
    loads = []
    for file in sources():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name.split(".")[0] for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, file
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in (
                "eval",
                "exec",
                "__import__",
                "np.load",
                "numpy.load",
                "torch.jit.load",
                "torch.hub.load",
            ), file
            assert not called.endswith(("read_pickle", "load_state_dict_from_url")), file
            if called == "torch.load":
                loads.append((file.name, {word.arg: ast.unparse(word.value) for word in node.keywords}["weights_only"]))
    assert loads == [("encoder_weights.py", "True")]


@pytest.fixture(params=["pickle", *(pytest.param(form, marks=pytest.mark.slow) for form in ("torch", "old torch"))])
def evil(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[bytes, Path]:
    """The content of a file that makes a folder when it is unpickled, and that folder."""
    proof = tmp_path / "it ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(proof),)

    content = {"evil": Evil()}
    if request.param == "pickle":
        data = pickle.dumps(content)
        pickle.loads(data)  # it would
        assert proof.is_dir()
        proof.rmdir()
        return data, proof
    file = tmp_path / "made"
    torch.save(content, file, _use_new_zipfile_serialization=request.param == "torch")
    return file.read_bytes(), proof


@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore::UserWarning:PIL")
def test_a_pickle_under_every_name_that_is_opened_does_nothing(
    evil: tuple[bytes, Path],
    command: Command,
    tiny_checkpoint_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, proof = evil
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    captions, images, train_list, val_list = make_shapes(tmp_path / "shapes", 10)
    picture = tmp_path / "a.png"
    draw_picture(0).save(picture)

    def planted(name: str) -> Path:
        file = tmp_path / "planted" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
        return file

    tiny = ("--checkpoint", tiny_checkpoint_file)
    lists = ("--train-list", train_list, "--val-list", val_list)
    train = ("train", "--captions", captions, "--images", images, *lists, "--encoder", "shufflenet_v2_x0_5")
    evaluate = ("evaluate", "--captions", captions)
    attempts: list[tuple[object, ...]] = [
        *(("caption", planted("a" + suffix), *tiny) for suffix in (".jpg", ".png", ".tiff", ".webp", ".avif", "")),
        *(("caption", picture, "--checkpoint", planted(name)) for name in ("a.safetensors", "a.pth", "a.pt", "a.bin")),
        ("caption", picture, *tiny, "--format", "coco", "--coco-images", planted("coco.json")),
        ("caption", picture, *tiny, "--output", tmp_path / "planted/out", "--resume", planted("out.journal")),
        ("data", "check", "--captions", planted("captions.txt"), "--images", images),
        ("data", "check", "--captions", captions, "--images", images, "--train-list", planted("list.txt")),
        (*evaluate, "--predictions", planted("predictions.json")),
        (*evaluate, "--images", images, "--split-list", planted("split.txt"), *tiny),
        ("compare", planted("one.json"), planted("two.json")),
        *((*train, "--output", tmp_path / "run", "--encoder-weights", planted(n)) for n in ("w.pth", "w.safetensors")),
        (*train[:-2], "--output", tmp_path / "run", "--init", planted("init.safetensors")),
        (*train, "--output", tmp_path / "run", "--config", planted("config.json")),
    ]
    for arguments in attempts:
        status, _, errors = command(*arguments)
        assert status in (1, 2), arguments
        assert re.match(r"captioner( [a-z]+)*: ", errors.splitlines()[-1]), arguments
        assert not proof.exists(), arguments
    with pytest.raises(TrainingError, match="damaged"):
        load_state(planted("state.safetensors").parent)
    with pytest.raises(TrainingError, match="delete this file"):
        FeatureCache(planted("features.sqlite")).fill(torch.zeros(1, 2, 4), [bytes(32)])
    assert not proof.exists()
