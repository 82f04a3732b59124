"""The index of pictures: exact, found again, and unharmed by kills, damage and other processes."""

from __future__ import annotations

import hashlib
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from captioner.bulk import index, moves
from captioner.bulk.index import Floats, IndexFile, as_float32
from captioner.bulk.moves import Digests, File
from captioner.errors import OutputError

FEATURES, SIZE = 24, 8
_SIDES = np.random.default_rng(1).standard_normal((FEATURES, SIZE)).astype(np.float32)


def pictures(features: Floats) -> Floats:
    """What a matcher makes of features."""
    vectors = features @ _SIDES
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


READER: Any = SimpleNamespace(size=SIZE, pictures=pictures, mean=np.zeros(FEATURES), std=np.ones(FEATURES))


def features_of(number: int) -> Floats:
    """Made-up features (F,) of a made-up picture."""
    return np.random.default_rng(number).standard_normal(FEATURES).astype(np.float32)


def digest_of(number: int) -> bytes:
    """The digest of that picture."""
    return hashlib.sha256(str(number).encode()).digest()


def opened(file: Path, said: list[str] | None = None, model: str = "model float32 torch") -> IndexFile:
    """An index in a file."""
    return IndexFile(file, model, READER, said.append if said is not None else print)


def add(to: IndexFile, numbers: range) -> None:
    """Add made-up pictures in one batch."""
    files = [File(f"{number}.jpg", None, digest_of(number)) for number in numbers]
    to.add(files, np.stack([features_of(number) for number in numbers]), 0)


def check(of: IndexFile, numbers: range) -> None:
    """These pictures are there, with their own features and vectors."""
    digests = [digest_of(number) for number in numbers]
    for number, found in zip(numbers, of.features(digests, 0), strict=True):
        assert np.array_equal([] if found is None else found, features_of(number)), number
    places = of.numbers(digests)
    assert len({*places.tolist()} - {index.NONE}) == len(numbers)
    order = np.argsort(places)
    vectors = of.products(places[order], np.eye(SIZE, dtype=np.float32))
    wanted = pictures(np.stack([features_of(numbers[place]) for place in order]))
    assert np.allclose(vectors, wanted, atol=1e-3)


def test_features_come_back_exactly_and_in_few_bytes(tmp_path: Path) -> None:
    exact, rounded = features_of(0), (features_of(1).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    some = opened(tmp_path / "a.sqlite")
    some.add([File("a", None, b"a"), File("b", None, b"b")], np.stack([exact, rounded]), 0)
    first, second, missing = some.features([b"a", b"b", b"c"], 0)
    assert first is not None
    assert second is not None
    assert missing is None
    assert np.array_equal(first, exact)
    assert np.array_equal(second, rounded)
    with sqlite3.connect(some.file) as database:
        sizes = [len(row[0]) for row in database.execute("SELECT features FROM pictures ORDER BY number")]
    assert sizes == [1 + 4 * FEATURES, 1 + 2 * FEATURES]


def test_features_of_batches_of_other_sizes_are_told_apart(tmp_path: Path) -> None:
    some = opened(tmp_path / "a.sqlite")
    for batch in (7, 32):
        some.add([File("a", None, b"a")], features_of(batch)[None], batch)
    for batch in (7, 32):
        (found,) = some.features([b"a"], batch)
        assert found is not None
        assert np.array_equal(found, features_of(batch))
    assert some.features([b"a"], 8) == [None]
    assert some.numbers([b"a"]).tolist() == [0]  # any of them finds the picture


def test_numbers_in_half_precision_are_read_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert np.array_equal(as_float32(finite), finite.astype(np.float32))


def test_files_that_do_not_change_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some, old, new = opened(tmp_path / "a.sqlite"), tmp_path / "old.jpg", tmp_path / "new.jpg"
    for file in (old, new):
        file.write_bytes(b"content")
    set_age(old, 60)
    files = [Digests().file(str(file)) for file in (old, new)]
    some.add(files, np.stack([features_of(0)] * 2), 0)
    # The new file may change once more without another time, so it is not trusted yet.
    assert some.known([str(old), str(new)]) == {str(old): files[0]}
    monkeypatch.chdir(tmp_path)
    assert some.known(["old.jpg"]) == {"old.jpg": files[0]._replace(path="old.jpg")}
    old.write_bytes(b"CONTENT")
    assert some.known([str(old)]) == {}
    set_age(old, 30)
    assert some.known([str(old)]) == {}


def set_age(file: Path, seconds: float) -> None:
    """Let a file be as if it was written so long ago."""
    import os
    import time

    then = time.time() - seconds
    os.utime(file, (then, then))


# Adds batches of 8 pictures in a process that kills itself after so many steps: SQL statements and parts of vectors.
_DYING = """import os, signal, sqlite3, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from bulk import test_index
from captioner.bulk import index
left, connect, place = int(sys.argv[3]), sqlite3.connect, index._place
def step(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
def watched(*arguments, **options):
    database = connect(*arguments, **options)
    database.set_trace_callback(step)
    return database
def slowly(file, vectors):
    for number, vector in vectors.items():
        step()
        place(file, {number: vector})
sqlite3.connect, index._place = watched, slowly
some = test_index.opened(Path(sys.argv[2]))
for start in range(int(sys.argv[4]), int(sys.argv[5]), 8):
    test_index.add(some, range(start, start + 8))
"""


def process(file: Path, steps: int, numbers: range) -> subprocess.Popen[bytes]:
    """Add pictures in a process that dies after so many steps."""
    tests = str(Path(__file__).parent.parent)
    given = [tests, str(file), str(steps), str(numbers.start), str(numbers.stop)]
    return subprocess.Popen([sys.executable, "-c", _DYING, *given], stderr=subprocess.PIPE)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such kills")
def test_kills_at_any_step_lose_whole_batches_only(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    rng, file = random.Random(0), tmp_path / "a.sqlite"
    for kill in range(pytestconfig.getoption("kills")):
        child = process(file, rng.randrange(120), range(0, 160))
        child.communicate()
        assert child.returncode == -signal.SIGKILL, kill
        some = opened(file)
        there = [number for number in range(160) if some.numbers([digest_of(number)])[0] != index.NONE]
        assert there == list(range(len(there)))
        assert len(there) % 8 == 0
        check(some, range(len(there)))
    add(opened(file), range(160))
    said: list[str] = []
    check(opened(file, said), range(160))
    assert not said


def test_two_processes_add_to_one_index(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "a.sqlite"
    children = [process(file, 10**9, range(0, 240)), process(file, 10**9, range(80, 320))]
    for child in children:
        assert child.communicate()[1] == b""
        assert child.returncode == 0
    said: list[str] = []
    check(opened(file, said), range(320))
    assert not said
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT count(*), max(number) FROM pictures").fetchone() == (320, 319)


@pytest.mark.parametrize("damage", ["gone", "cut off", "zeros", "not numbers", "others"])
def test_damaged_vectors_are_computed_again(tmp_path: Path, damage: str) -> None:
    said: list[str] = []
    some = opened(tmp_path / "a.sqlite", said)
    add(some, range(2000))
    (vectors,) = tmp_path.glob("*.vectors")
    data = bytearray(vectors.read_bytes())
    place = 2 * SIZE * 1500
    if damage == "zeros":
        data[place : place + 600] = bytes(600)
    elif damage == "not numbers":
        data[place : place + 600] = b"\xff" * 600
    elif damage == "others":
        data[place : place + 600] = random.Random(0).randbytes(600)
    vectors.write_bytes(data[:place] if damage == "cut off" else data)
    if damage == "gone":
        vectors.unlink()
    check(some, range(2000))
    assert len(said) == 1
    assert "damaged vectors were computed again" in said[0]
    check(some, range(2000))
    assert len(said) == 1


def test_a_damaged_record_is_forgotten(tmp_path: Path) -> None:
    some = opened(tmp_path / "a.sqlite", [])
    add(some, range(4))
    with sqlite3.connect(some.file) as database:
        database.execute("UPDATE pictures SET features = zeroblob(97) WHERE number = 2")
    assert some.features([digest_of(2)], 0) == [None]
    (vectors,) = tmp_path.glob("*.vectors")
    vectors.unlink()
    products = some.products(np.arange(4), np.eye(SIZE, dtype=np.float32))
    assert not products[2].any()
    assert products[[0, 1, 3]].any(1).all()
    assert (some.numbers([*map(digest_of, range(4))]) == index.NONE).tolist() == [False, False, True, False]
    add(some, range(4))
    check(some, range(4))


def test_a_damaged_database_is_made_anew_with_what_can_be_read(tmp_path: Path) -> None:
    said: list[str] = []
    some = opened(tmp_path / "a.sqlite", said)
    add(some, range(2000))
    data = bytearray(some.file.read_bytes())
    place = len(data) * 3 // 4
    data[place : place + 40_000] = b"\xff" * 40_000
    some.file.write_bytes(data)
    for number in range(2000):  # until something damaged is met
        some.features([digest_of(number)], 0)
    kept = [number for number in range(2000) if some.numbers([digest_of(number)])[0] != index.NONE]
    assert 100 < len(kept) < 2000
    assert len(said) == 1
    assert f"{len(kept):,} pictures that could be read" in said[0]
    add(some, range(2000))
    check(some, range(2000))
    assert len(list(tmp_path.glob("*.vectors"))) == 1


def test_an_index_in_the_cache_of_which_nothing_can_be_read_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path))
    said: list[str] = []
    some = opened(index.index_folder() / "a.sqlite", said)
    add(some, range(3))
    some.file.write_bytes(b"\xff" * 100_000)
    assert some.numbers([digest_of(0)]).tolist() == [index.NONE]
    assert "made anew with 0 pictures" in said[0]
    add(some, range(3))
    check(some, range(3))


def test_files_that_are_no_index_of_ours_stay_as_they_are(tmp_path: Path) -> None:
    photo, other = tmp_path / "photo.jpg", tmp_path / "other.db"
    photo.write_bytes(b"\xff\xd8\xff\xe0" * 1000)
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE mine (words TEXT)")
    for file, message in ((photo, "not an index of captioner"), (other, "of another program")):
        before = file.read_bytes()
        with pytest.raises(OutputError, match=message):
            add(opened(file), range(3))
        assert file.read_bytes() == before
    add(opened(tmp_path / "a.sqlite"), range(3))
    with pytest.raises(OutputError, match="another checkpoint or precision"):
        opened(tmp_path / "a.sqlite", model="model bfloat16 torch").numbers([])


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be used"):
        add(opened(tmp_path / "file" / "a.sqlite"), range(3))
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(OutputError, match="cannot be used"):
        add(opened(tmp_path / "folder.sqlite"), range(3))


def test_the_folder_of_indexes_is_for_its_owner_alone(tmp_path: Path) -> None:
    add(opened(tmp_path / "index" / "a.sqlite"), range(3))
    assert sys.platform == "win32" or (tmp_path / "index").stat().st_mode & 0o777 == 0o700


def test_a_file_that_changes_while_it_is_read_is_not_remembered_by_its_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, file = opened(tmp_path / "a.sqlite"), tmp_path / "a.jpg"
    file.write_bytes(b"old")
    set_age(file, 60)

    def changing(path: Path) -> str:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.write_bytes(b"new, and longer")
        set_age(file, 30)
        return digest

    monkeypatch.setattr(moves, "sha256_of", changing)
    some.remember([Digests().file(str(file))])
    assert some.known([str(file)]) == {}


def test_of_a_large_folder_only_the_pictures_of_a_batch_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To go through the whole folder for each batch would take hours with a million pictures in it."""
    some, read = opened(tmp_path / "a.sqlite"), list[object]()
    monkeypatch.setattr(index, "stamp_of", lambda path: (1, 2))
    files = [File(f"photos/{number}.jpg", (1, 2), digest_of(number)) for number in range(600)]
    some.remember(files)

    class Counting:
        def __init__(self, database: sqlite3.Connection) -> None:
            self._database = database

        def execute(self, *query: Any) -> Any:
            rows = list(self._database.execute(*query))
            read.extend(rows)
            return iter(rows)

    once = IndexFile._once
    monkeypatch.setattr(
        IndexFile, "_once", lambda self, work, begin: once(self, lambda database: work(Counting(database)), begin)
    )
    batch = files[100:132]
    assert some.known([file.path for file in batch]) == {file.path: file for file in batch}
    assert len(read) == 32
    assert len(some.known([file.path for file in files])) == 600
