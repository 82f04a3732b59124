"""Finding pictures: ranks as by hand, folders that change, indexes that are shared, duplicates."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import draw_picture

import captioner
from captioner.bulk import find
from captioner.bulk.duplicates import grouped
from captioner.bulk.find import Index, best_first, score
from captioner.bulk.index import Floats, IndexFile, Numbers
from captioner.bulk.progress import Progress
from captioner.errors import CheckpointError, ImageError, InputError, OptionError
from captioner.inference.captioner import Captioner
from captioner.inference.reader import load_reader


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache for each test."""
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(pictures: list[Path]) -> Path:
    """The folder of seven pictures, none of which has just changed."""
    for path in pictures:
        grow_old(path)
    return pictures[0].parent


def grow_old(path: Path) -> None:
    """Let a file be as if it was written an hour ago."""
    then = time.time() - 3600
    os.utime(path, (then, then))


class Encoded:
    """How many pictures were encoded."""

    number = 0


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Encoded:
    """Count the pictures that any model encodes."""
    counter, encode = Encoded(), captioner.inference.torch_engine.PictureEncoder.encode_pixels

    def counting(self: Any, pixels: Any) -> Any:
        counter.number += len(pixels)
        return encode(self, pixels)

    monkeypatch.setattr("captioner.inference.torch_engine.PictureEncoder.encode_pixels", counting)
    return counter


def opened(paths: Any, checkpoint: Path, **given: Any) -> Index:
    """An index, in float32."""
    return captioner.open_index(paths, checkpoint=checkpoint, **{"precision": "float32", **given})


def names(matches: list[find.Match]) -> list[str]:
    """The names of pictures that were found."""
    return [Path(match.path).name for match in matches]


def test_ranks_are_those_of_the_products(folder: Path, finder_checkpoint_file: Path) -> None:
    index, reader = opened(folder, finder_checkpoint_file), load_reader(finder_checkpoint_file)
    model = captioner.load(finder_checkpoint_file, precision="float32")
    paths = sorted(map(str, folder.iterdir()))
    vectors = reader.pictures(model.encode(paths))
    query = reader.sentences(["a red ball"])[0]
    wanted = dict(zip(paths, (vectors @ query).tolist(), strict=True))
    found = index.find("a red ball", n=5)
    assert [match.path for match in found] == sorted(wanted, key=wanted.__getitem__, reverse=True)[:5]
    assert [match.score for match in found] == pytest.approx([wanted[match.path] for match in found], abs=2e-3)
    assert len(index) == 7
    without = dict(zip(paths, score(vectors @ np.stack([query, vectors[0]], 1)), strict=True))
    assert without[paths[0]] < wanted[paths[0]]
    again = index.find("a red ball", without="the cat in the snow", n=7)
    unwanted = np.maximum(vectors @ reader.sentences(["the cat in the snow"])[0], 0)
    by_hand = vectors @ query - unwanted
    assert [match.path for match in again] == [paths[place] for place in np.argsort(-by_hand)]


def test_similar_pictures_come_first_and_the_picture_itself_is_left_out(
    folder: Path, finder_checkpoint_file: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.png"
    draw_picture(3).resize((48, 36)).save(small)
    index = opened(folder, finder_checkpoint_file)
    assert names(index.like(small, n=1)) == ["picture3.jpg"]
    assert names(index.like(small.read_bytes(), n=1)) == ["picture3.jpg"]
    assert names(index.like(draw_picture(3), n=1)) == ["picture3.jpg"]
    assert "picture3.jpg" not in names(index.like(folder / "picture3.jpg", n=7))
    both = index.find("a dog", like=small, n=7)
    assert len(both) == 7
    with pytest.raises(ImageError, match="no such file"):
        index.like(tmp_path / "nowhere.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(ImageError, match=r"broken\.jpg: "):
            index.like(tmp_path / "broken.jpg")


def test_each_content_is_encoded_once_wherever_it_is(
    folder: Path, finder_checkpoint_file: Path, tmp_path: Path, encoded: Encoded
) -> None:
    first = opened(folder, finder_checkpoint_file)
    assert encoded.number == 7
    assert names(opened(folder, finder_checkpoint_file).find("a dog")) == names(first.find("a dog"))
    shutil.copytree(folder, tmp_path / "copied")
    assert len(opened(tmp_path / "copied", finder_checkpoint_file)) == 7
    (folder / "picture0.jpg").rename(folder / "moved.jpg")
    first.update()
    assert "moved.jpg" in names(first.find("a dog"))
    assert encoded.number == 7


def test_what_is_known_of_very_many_pictures_is_not_in_memory_at_once(
    folder: Path, tmp_path: Path, finder_checkpoint_file: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, originals = tmp_path / "many", sorted(folder.iterdir())
    many.mkdir()
    for number in range(600):
        os.link(originals[number % len(originals)], many / f"{number:03}.jpg")
    (many / "300.jpg").unlink()
    (many / "300.jpg").write_text("broken")
    known, asked = IndexFile.known, list[int]()
    monkeypatch.setattr(
        IndexFile, "known", lambda self, paths: asked.append(len(given := list(paths))) or known(self, given)
    )
    index = opened(many, finder_checkpoint_file)
    assert (len(index), list(index.failed), encoded.number) == (599, [str(many / "300.jpg")], len(originals))
    again = opened(many, finder_checkpoint_file)
    assert (len(again), list(again.failed), encoded.number) == (599, [str(many / "300.jpg")], len(originals))
    assert sum(asked) > 600
    assert max(asked) <= 256
    [first, *_] = index.like(originals[3], n=len(index))
    alike = index.like(originals[3], n=86)
    assert first.score == pytest.approx(1, abs=1e-3)
    assert {int(Path(match.path).stem) % len(originals) for match in alike[:85]} == {3}
    groups = index.duplicates(threshold=1)
    assert sorted(map(len, groups)) == sorted(
        sum(number % len(originals) == kind for number in range(600) if number != 300) for kind in range(len(originals))
    )


def test_a_folder_that_changes_is_followed(folder: Path, finder_checkpoint_file: Path, encoded: Encoded) -> None:
    index = opened(folder, finder_checkpoint_file)
    (folder / "picture1.jpg").unlink()
    assert "picture1.jpg" not in names(index.find("a dog"))  # also before anybody looked again
    draw_picture(11).save(folder / "picture2.jpg")
    draw_picture(12).save(folder / "new.jpg")
    index.update()
    assert len(index) == 7
    assert encoded.number == 9
    assert names(index.like(draw_picture(11), n=1)) == ["picture2.jpg"]


def test_an_unchanged_folder_is_neither_read_nor_encoded(
    folder: Path, finder_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = opened(folder, finder_checkpoint_file).find("a dog")

    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("captioner.bulk.moves.sha256_of", never)
    monkeypatch.setattr(Captioner, "encode_named", never)
    assert opened(folder, finder_checkpoint_file, precision="auto").find("a dog") == wanted


def test_an_index_of_a_version_before_is_made_anew(
    folder: Path, finder_checkpoint_file: Path, fresh_cache: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its features are of other pixels, and the two do not mix."""
    with monkeypatch.context() as before:
        before.setattr("captioner.bulk.reuse._PIXELS", "1")
        opened(folder, finder_checkpoint_file)
    draw_picture(20).save(folder / "new.jpg")
    said: list[str] = []
    index = opened(folder, finder_checkpoint_file, progress=Progress(say=said.append))
    assert len(index.find("a dog", 20)) == 8
    assert encoded.number == 7 + 8
    assert not any("changes just now" in line for line in said)


def test_a_finished_index_is_queried_without_torch(folder: Path, finder_checkpoint_file: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"nothing")
    grow_old(folder / "broken.jpg")
    wanted = opened(folder, finder_checkpoint_file).find("a dog in the snow")
    code = f"""import sys
sys.modules.update(torch=None, torchvision=None)
from captioner.cli.main import main
given = [{str(folder)!r}, "--checkpoint", {str(finder_checkpoint_file)!r}]
assert main(["find", "a dog in the snow", *given]) == 1
assert main(["find", "--like", {str(folder / "picture2.jpg")!r}, *given]) == 1
assert main(["find", "--duplicates", *given]) == 1"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[:7]
    assert [line.split("\t")[0] for line in first] == [match.path for match in wanted]
    assert done.stderr.count("broken.jpg: ") == 3


def test_pictures_that_cannot_be_read_are_named_and_tried_again_with_others(
    folder: Path, finder_checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    (folder / "broken.jpg").write_bytes(b"nothing")
    index = opened([folder, folder / "nowhere.jpg"], finder_checkpoint_file, progress=Progress(say=said.append))
    failed = {str(folder / "broken.jpg"), str(folder / "nowhere.jpg")}
    assert index.failed.keys() == failed
    assert sum("broken.jpg: " in line for line in said) == 1
    assert sum("nowhere.jpg: no such file" in line for line in said) == 1
    assert len(index) == 7
    again = opened(folder, finder_checkpoint_file)
    assert again.failed[str(folder / "broken.jpg")] == index.failed[str(folder / "broken.jpg")]
    monkeypatch.setattr("captioner.network.preprocess.load_image", lambda *_, **__: draw_picture(9))
    draw_picture(8).save(folder / "new.jpg")
    again.update()
    assert not again.failed
    assert len(again) == 9


def test_words_that_the_model_does_not_know_are_named(folder: Path, finder_checkpoint_file: Path) -> None:
    said: list[str] = []
    index = opened(folder, finder_checkpoint_file, progress=Progress(say=said.append))
    index.find("a purple dog near a zeppelin")
    assert said[-1] == "captioner: note: the model does not know purple, near, zeppelin: left out"
    for text in ("purple zeppelin", "...", "\x1b[2J"):
        with pytest.raises(OptionError, match="knows none of these words"):
            index.find(text)
    with pytest.raises(OptionError, match="knows none"):
        index.find("a dog", without="zeppelin")
    with pytest.raises(OptionError, match="give a sentence"):
        index.find()
    with pytest.raises(OptionError, match="at least 1"):
        index.find("a dog", n=0)


def test_chinese_finds_pictures_too(folder: Path, tmp_path: Path, finder_checkpoint_file: Path) -> None:
    from network.checkpoint_files import read_parts, write_parts

    content, tensors = read_parts(finder_checkpoint_file)
    content["tokens"] = "character"
    words = content["vocabulary"]
    words[4:8] = list("一只狗在")
    content["spellings"] = {}
    checkpoint = write_parts(tmp_path / "chinese.safetensors", content, tensors)
    said: list[str] = []
    index = opened(folder, checkpoint, progress=Progress(say=said.append))
    assert len(index.find("一只狗")) == 7
    index.find("一只猫")
    assert said[-1] == "captioner: note: the model does not know 猫: left out"


def test_what_cannot_be_found_in_is_refused(
    folder: Path, tiny_checkpoint_file: Path, finder_checkpoint_file: Path, tmp_path: Path
) -> None:
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="has no matcher"):
        opened(folder, tiny_checkpoint_file)
    with pytest.raises(InputError, match="no pictures"):
        opened(empty, finder_checkpoint_file)


def test_where_the_cache_cannot_be_written_pictures_are_found_all_the_same(
    folder: Path, finder_checkpoint_file: Path, fresh_cache: Path
) -> None:
    wanted = opened(folder, finder_checkpoint_file).find("a dog")
    shutil.rmtree(fresh_cache)
    fresh_cache.write_text("in the way")
    said: list[str] = []
    index = opened(folder, finder_checkpoint_file, progress=Progress(say=said.append))
    assert index.find("a dog") == wanted
    assert any("kept only until the end" in line for line in said)


def test_an_index_in_another_place_and_a_damaged_one(
    folder: Path, finder_checkpoint_file: Path, tmp_path: Path, fresh_cache: Path, encoded: Encoded
) -> None:
    file = tmp_path / "here" / "my.index"
    wanted = opened(folder, finder_checkpoint_file, index=file).find("a dog")
    assert file.exists()
    assert not fresh_cache.exists()
    assert opened(folder, finder_checkpoint_file, index=file).find("a dog") == wanted
    assert encoded.number == 7
    opened(folder, finder_checkpoint_file)
    (made,) = (fresh_cache / "index").glob("*.sqlite")
    made.write_bytes(os.urandom(50_000))
    assert opened(folder, finder_checkpoint_file).find("a dog") == wanted
    assert encoded.number == 21


def test_raw_files_beside_their_jpegs_are_one_picture(folder: Path, finder_checkpoint_file: Path) -> None:
    (folder / "picture0.dng").write_bytes(b"raw")
    assert len(opened([*map(str, sorted(folder.iterdir()))], finder_checkpoint_file)) == 7


@pytest.fixture
def copies(folder: Path) -> dict[str, set[str]]:
    """Variations of some pictures: the names that belong together, by one of them."""
    shutil.copy(folder / "picture0.jpg", folder / "a copy.jpg")
    draw_picture(1).save(folder / "recompressed.jpg", quality=60)
    draw_picture(1).resize((192, 144)).save(folder / "large.png")
    together = [{"picture0.jpg", "a copy.jpg"}, {"picture1.jpg", "recompressed.jpg", "large.png"}]
    return {name: group for group in together for name in group}


def test_duplicates_are_grouped_and_the_largest_file_comes_first(
    folder: Path, copies: dict[str, set[str]], finder_checkpoint_file: Path
) -> None:
    index = opened(folder, finder_checkpoint_file)
    groups = index.duplicates(0.9)
    assert [{*names(group)} for group in groups] == [copies["a copy.jpg"], copies["large.png"]]
    assert [match.score for match in groups[0]] == [1, 1]
    assert all(0.9 <= match.score <= 1.001 for match in groups[1])
    for group in groups:
        sizes = [Path(match.path).stat().st_size for match in group]
        assert sizes == sorted(sizes, reverse=True)
    (folder / "a copy.jpg").unlink()
    assert [{*names(group)} for group in index.duplicates(0.9)] == [copies["large.png"]]
    with pytest.raises(OptionError, match="threshold"):
        index.duplicates(1.5)


def test_each_look_at_the_folders_says_what_came_since_the_last_one(folder: Path, finder_checkpoint_file: Path) -> None:
    said: list[str] = []
    (folder / "bad.jpg").write_bytes(b"bad")
    index = opened(folder, finder_checkpoint_file, progress=Progress(say=said.append))
    assert "7 indexed, 1 failed" in said[-1]
    for number in (8, 9):
        draw_picture(number).save(folder / f"new{number}.jpg")
    index.update()
    index.update()
    (summary,) = (line for line in said[2:] if "indexed" in line)
    assert "2 indexed, 1 failed" in summary  # the bad one was tried again


@pytest.mark.parametrize("number", [80, 300])
def test_very_many_pictures_that_are_nearly_the_same_are_one_group(number: int) -> None:
    vectors = np.full((number, 4), 0.5, np.float32)

    def features_of(places: Numbers) -> Floats:
        return np.stack([vectors[place] for place in places])  # which the index does, and not of no places

    (group,) = grouped(vectors, features_of, 0.8, 0.9)
    assert group == dict.fromkeys(range(number), 1.0)


def test_groups_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.bulk.duplicates._ROWS", 7)
    monkeypatch.setattr("captioner.bulk.duplicates._PAIRS", 5)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((60, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for threshold in (0.8, 0.95, 0.99):
        found = grouped(vectors, lambda places: vectors[places], threshold - 0.1, threshold)
        linked, group = vectors @ vectors.T >= threshold, list(range(60))
        for i, j in zip(*np.nonzero(linked), strict=True):
            group = [group[i] if one == group[j] else one for one in group]
        wanted = {frozenset(k for k in range(60) if group[k] == one) for one in group}
        assert {frozenset(one) for one in found} == {one for one in wanted if len(one) > 1}


@pytest.mark.parametrize("number", [1, 999, 1000, 1001, 3500])
def test_the_best_come_first_also_among_equals(number: int) -> None:
    scores = np.random.default_rng(number).integers(0, 50, number).astype(np.float32)
    assert list(best_first(scores)) == np.argsort(-scores, kind="stable").tolist()
