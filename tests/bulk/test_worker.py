"""What a worker makes of a unit of work, without a cluster."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_picture

import captioner
from bulk.test_sources import write_parquet, write_tar
from captioner.bulk.sources import units
from captioner.bulk.worker import Job, Seen, Worker
from captioner.errors import ImageError
from captioner.inference.results import Row

BROKEN = b"not a picture"


@pytest.fixture
def work(finder_checkpoint_file: Path) -> Iterator[Callable[..., list[Row]]]:
    """Caption sources with a worker for a job of these settings."""
    threads = torch.get_num_threads()

    def work(*sources: str, **settings: Any) -> list[Row]:
        job = Job(finder_checkpoint_file.read_bytes(), captioner.DecodeOptions(), precision="float32", **settings)
        worker = Worker(job, threads, "cpu", str(Path.cwd()))
        return [row for unit in units(sources, 4) for row in worker.caption(unit)]

    yield work
    torch.set_num_threads(threads)


@pytest.fixture
def shard(pictures: list[Path], tmp_path: Path) -> str:
    """Five pictures, of which the second has a caption, and the last one is broken and has one."""
    data = [path.read_bytes() for path in pictures[:4]]
    members = {f"{number}.jpg": content for number, content in enumerate([*data, BROKEN])}
    given = {"1.txt": b"A person's words.\n", "4.txt": b"More words."}
    return write_tar(tmp_path / "shard.tar", dict(sorted((members | given).items())))


def test_a_caption_that_is_there_is_carried_over_and_said_to_be_given(
    work: Callable[..., list[Row]], shard: str, pictures: list[Path], finder_checkpoint_file: Path
) -> None:
    rows = work(shard)
    assert [row["path"] for row in rows] == [f"{shard}/{number}.jpg" for number in range(5)]
    assert rows[1] == {"path": f"{shard}/1.jpg", "caption": "A person's words.", "given": True}
    assert rows[4] == {"path": f"{shard}/4.jpg", "caption": "More words.", "given": True}
    model = captioner.load(finder_checkpoint_file, precision="float32")
    for number in (0, 2, 3):
        assert rows[number]["caption"] == model.caption(pictures[number]).text
        assert rows[number]["digest"] == hashlib.sha256(pictures[number].read_bytes()).hexdigest()
        assert "given" not in rows[number]


def test_with_vectors_a_picture_with_a_caption_is_looked_at(
    work: Callable[..., list[Row]], shard: str, pictures: list[Path], finder_checkpoint_file: Path
) -> None:
    model = captioner.load(finder_checkpoint_file, precision="float32")
    rows = work(shard, vector_size=16)
    expected = model.reader().pictures(model.encode(pictures[:4]))
    np.testing.assert_allclose([row["vector"] for row in rows[:4]], expected, atol=1e-5)
    assert {key: rows[1][key] for key in ("caption", "given")} == {"caption": "A person's words.", "given": True}
    assert "logprob" not in rows[1], "the numbers of another caption"
    assert rows[4]["caption"] == "More words."
    assert "not a picture" in rows[4]["error"]
    assert "vector" not in rows[4]


def test_on_request_it_is_captioned_all_the_same(work: Callable[..., list[Row]], shard: str) -> None:
    rows = work(shard, recaption=True)
    assert all("given" not in row for row in rows)
    assert rows[1]["words"]
    assert "caption" not in rows[4]


def test_a_column_of_captions_in_a_table(work: Callable[..., list[Row]], pictures: list[Path], tmp_path: Path) -> None:
    captions = ["One.", None, " ", "Four."]
    paths = [*map(str, pictures[:3]), "missing.jpg"]
    table = write_parquet(tmp_path / "t.parquet", {"caption": captions, "path": paths}, rows_a_group=4)
    rows = work(table)
    assert [row["path"] for row in rows] == paths
    assert [row["caption"] for row in rows if "given" in row] == ["One.", "Four."]
    assert all(row["words"] for row in rows[1:3])


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_vectors_are_those_of_the_pictures_that_can_be_read(finder_checkpoint_file: Path, batch_size: int) -> None:
    model = captioner.load(finder_checkpoint_file, precision="float32")
    reader, images = model.reader(), [draw_picture(index) for index in range(5)]
    named = [("same name", image) for image in images]
    bad = ("same name", ImageError("missing"))
    seen = Seen(reader)
    given = iter([*named[:2], bad, *named[2:], bad])
    results = list(model.caption_named(seen.noted(given), None, batch_size, store=seen))
    assert [result.error is None for result in results] == [True, True, False, True, True, True, False]
    captions = [result.caption.text for result in results if result.caption]
    assert captions == [caption.text for caption in model.caption_batch(images)]
    found = np.array([facts["vector"] for facts in seen.facts if "vector" in facts])
    np.testing.assert_allclose(found, reader.pictures(model.encode(images)), atol=1e-5)
    assert np.abs(found[1:] - found[:-1]).max(1).min() > 0.01  # so that a wrong order would be noticed
