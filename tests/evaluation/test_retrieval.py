"""Ranks by counting, ties that flatter nobody, and the command with its page, its JSON and its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import make_checkpoint
from network.checkpoint_files import with_matcher
from test_schemas import check

import captioner
from captioner.errors import CheckpointError, DataError
from captioner.evaluation.retrieval import _BLOCK, ranks, recalls, retrieval_scores
from captioner.inference.torch_engine import captioner_of
from captioner.network.checkpoint import save_checkpoint

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def matcher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("retrieval") / "matcher.safetensors"
    save_checkpoint(path, with_matcher(make_checkpoint()))
    return path


@pytest.fixture
def captions(pictures: list[Path]) -> Path:
    """Two sentences of each picture, three of the first."""
    lines = [f"{path.name}#{n}\ta {['dog', 'cat', 'man'][n]} on the snow" for path in pictures for n in range(2)]
    file = pictures[0].parent.parent / "captions.txt"
    file.write_text("\n".join([*lines, f"{pictures[0].name}#2\tred ball"]) + "\n")
    return file


def test_ranks_are_those_of_sorting() -> None:
    rng = np.random.default_rng(0)
    sentences, pictures = (rng.normal(size=(n, 8)).astype(np.float32) for n in (_BLOCK + 70, 60))
    owner = rng.integers(0, 59, len(sentences))  # the last picture has no sentence
    by_sentence, by_picture = ranks(sentences, pictures, owner)
    scores = sentences @ pictures.T
    for number in (0, 5, _BLOCK, len(sentences) - 1):
        assert np.argsort(-scores[number]).tolist().index(owner[number]) + 1 == by_sentence[number]
    for number in (0, 31, 58):
        order = np.argsort(-scores[:, number])
        assert next(place for place, s in enumerate(order, 1) if owner[s] == number) == by_picture[number]
    assert by_picture[59] == 0
    assert recalls(by_picture)["r1"] == pytest.approx(100 * (by_picture[:59] == 1).mean(), abs=0.01)


def test_vectors_that_are_all_alike_find_nothing() -> None:
    alike = np.ones((20, 4), np.float32)
    found = retrieval_scores(*ranks(alike, alike, np.arange(20)))
    assert found["picture_by_sentence"] == {"r1": 0.0, "r5": 0.0, "r10": 0.0, "median": 20.0}
    assert found["sentence_by_picture"] == found["picture_by_sentence"]
    apart = np.eye(20, dtype=np.float32)
    assert retrieval_scores(*ranks(apart, apart, np.arange(20)))["recall"] == 100.0


def test_the_command(command: Command, captions: Path, pictures: list[Path], matcher_file: Path) -> None:
    folder, files = pictures[0].parent, [captions.with_name(name) for name in ("scores.json", "report.html")]
    arguments = ("evaluate", "--retrieval", "--captions", captions, "--images", folder, "--checkpoint", matcher_file)
    status, out, _ = command(*arguments, "--json", files[0], "--report", files[1])
    assert status == 0
    assert "picture by sentence" in out
    assert "7 pictures, 15 sentences" in out
    assert "recipe: metrics:recall+median_rank|images:7|refs:2-3|" in out
    content = json.loads(files[0].read_text())
    check("retrieval", content)
    assert len(content["queries"]) == 15
    model = captioner.load(
        matcher_file, precision=dict(p.split(":") for p in content["recipe"].split("|"))["precision"]
    )
    reader = model.reader()
    for query in content["queries"][:3]:
        features = model.encode([folder / path.name for path in pictures])
        scores = reader.pictures(features) @ reader.sentences([query["sentence"]])[0]
        order = [pictures[place].name for place in np.argsort(-scores)]
        assert order.index(query["name"]) + 1 <= query["rank"]  # sentences may be of several pictures
        assert set(query["found"]) <= {path.name for path in pictures}
    page = files[1].read_text()
    assert page.count("<figure") >= 5
    assert "Worst queries" in page


def test_what_is_wrong_is_said(
    command: Command, captions: Path, pictures: list[Path], matcher_file: Path, tiny_checkpoint_file: Path
) -> None:
    images = ("--images", pictures[0].parent)
    for arguments, message in (
        ((), "--retrieval needs the pictures: give --images DIR"),
        ((*images, "--beam-size", 2), "leave out --beam-size"),
        ((*images, "--predictions", captions), "leave out --predictions"),
        ((*images, "--checkpoint", tiny_checkpoint_file), "has no matcher"),
    ):
        status, _, err = command("evaluate", "--retrieval", "--captions", captions, *arguments)
        assert status == 2
        assert message in err


def test_a_picture_that_cannot_be_read(captions: Path, pictures: list[Path], matcher_file: Path) -> None:
    pictures[3].write_bytes(b"no picture")
    model = captioner.load(matcher_file)
    with pytest.raises(DataError, match=r"1 picture cannot be read \(picture3.jpg\)"):
        captioner.evaluate_retrieval(captions, images=pictures[0].parent, model=model)
    said: list[str] = []
    result = captioner.evaluate_retrieval(
        captions, images=pictures[0].parent, model=model, allow_missing=True, say=said.append
    )
    assert result.scores["pictures"] == 6
    assert any("picture3.jpg" in line for line in said)
    assert "unreadable:1" in result.recipe


def test_a_model_in_memory_has_no_reader() -> None:

    with pytest.raises(CheckpointError, match="not loaded from a file"):
        captioner_of(with_matcher(make_checkpoint())).reader()
