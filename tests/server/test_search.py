"""/find: the order of the index, paths in the folder and nothing outside it, and a plain no without a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import make_checkpoint
from network.checkpoint_files import with_matcher

import captioner
from captioner.inference.captioner import Captioner
from captioner.network.checkpoint import save_checkpoint
from server.running import Running, Start, jpeg, until


@pytest.fixture(scope="module")
def finder_model(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    path = tmp_path_factory.mktemp("matcher") / "matcher.safetensors"
    save_checkpoint(path, with_matcher(make_checkpoint()))
    return captioner.load(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "photos" / "more"
    inside.mkdir(parents=True)
    for index in range(5):
        (inside.parent / f"{index}.jpg").write_bytes(jpeg(index))
    (inside / "5.jpg").write_bytes(jpeg(5))
    (tmp_path / "secret.jpg").write_bytes(jpeg(6))
    (inside.parent / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    return inside.parent


def found(server: Running, **asked: object) -> list[dict[str, object]]:
    """What it finds, once its index is there."""
    until(lambda: server.post("/find", {"text": "a dog"}).status_code != 503)
    answer = server.post("/find", asked)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


def test_pictures_come_as_in_the_index(start: Start, finder_model: Captioner, folder: Path) -> None:
    server = start(folder, model=finder_model)
    rows = found(server, text="a red ball on the grass", n=4)
    index = captioner.open_index(folder, model=finder_model, recursive=True)
    wanted = [m for m in index.find("a red ball on the grass") if "link" not in m.path][:4]
    assert [row["path"] for row in rows] == [os.path.relpath(match.path, folder) for match in wanted]
    assert [row["score"] for row in rows] == [pytest.approx(match.score, abs=1e-3) for match in wanted]
    every = {row["path"] for row in found(server, text="a dog", without="snow")}
    assert every == {"0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", str(Path("more", "5.jpg"))}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"text": "zebra"}, "zebra"),
        ({"text": 3}, "text must be a text"),
        ({}, "give a sentence"),
        ({"text": "a dog", "n": 0}, "n must be a whole number from 1 to 1000"),
        ({"text": "a dog", "number": 3}, "no option 'number'"),
    ],
)
def test_wrong_questions_are_refused(
    start: Start, finder_model: Captioner, folder: Path, body: dict[str, object], reason: str
) -> None:
    server = start(folder, model=finder_model)
    found(server, text="a dog")
    answer = server.post("/find", body)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_without_a_folder_it_says_how_to_get_one(start: Start, finder_model: Captioner) -> None:
    answer = start(model=finder_model).post("/find", {"text": "a dog"})
    assert answer.status_code == 400
    assert "--folder DIR" in answer.json()["error"]


def test_a_model_without_a_matcher_and_a_folder_without_pictures(
    start: Start, tiny_checkpoint_file: Path, finder_model: Captioner, folder: Path, tmp_path: Path
) -> None:
    server = start(folder, model=captioner.load(tiny_checkpoint_file))
    answer = server.post("/find", {"text": "a dog"})
    assert answer.status_code == 400
    assert "has no matcher" in answer.json()["error"]
    (tmp_path / "empty").mkdir()
    server = start(tmp_path / "empty", model=finder_model)
    assert server.post("/find", {"text": "a dog"}).status_code == 400
    (tmp_path / "empty" / "a.jpg").write_bytes(jpeg(1))
    assert [row["path"] for row in found(server, text="a dog")] == ["a.jpg"]
