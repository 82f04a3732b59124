"""Which pictures have rows from earlier runs."""

import ntpath
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioner.bulk import earlier as module
from captioner.bulk.earlier import Earlier, key_of


def test_a_picture_is_known_by_its_absolute_path_or_its_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    earlier = Earlier()
    for name in ("photos/a.jpg", "photos/a.jpg", "s3://b/x/../c.jpg", "odd\udcff.jpg"):
        earlier.add(name, failed=False)
    earlier.add("photos/broken.jpg", failed=True)
    assert earlier.take(f"{tmp_path}/photos/a.jpg")
    assert earlier.take("./photos/../photos/a.jpg")
    assert earlier.take("s3://b/x/../c.jpg")
    assert not earlier.take("s3://b/c.jpg")
    assert earlier.take("odd\\udcff.jpg"), "as parquet holds it"
    assert not earlier.take("photos/broken.jpg"), "it is tried again"
    assert earlier.failed == earlier.again == {key_of("photos/broken.jpg")}


def test_a_row_is_taken_once_and_only_what_was_asked_for_is_known() -> None:
    earlier = Earlier(["x.tar"])
    for name in ("a.jpg", "a.jpg", "b.jpg", "x.tar/0.jpg", "x.tar/1.jpg"):
        earlier.add(name, failed=False)
    assert [earlier.take("a.jpg") for _ in range(3)] == [True, True, False]
    assert not earlier.take("c.jpg")
    assert earlier.known == 2
    assert earlier.members("x.tar") is None
    assert earlier.known == 4


@pytest.mark.parametrize("windows", [False, True])
def test_the_member_of_a_tar_file_is_known_as_it_is(monkeypatch: pytest.MonkeyPatch, windows: bool) -> None:
    tar = "C:\\d\\..\\x.tar" if windows else "d/../x.tar"
    if windows:
        monkeypatch.setattr(module, "os", SimpleNamespace(path=ntpath))
    members = {"a.jpg", "./a.jpg", "sub//c.jpg", "/a.jpg", "s/../d.jpg", "http://e.jpg"}
    earlier = Earlier([tar])
    for member in members:
        earlier.add(f"{tar}/{member}", failed=False)
    earlier.add(f"{tar}/./f.jpg", failed=True)
    assert earlier.members(tar) == members
    assert len(earlier.pictures) == len(members)


def test_of_a_tar_file_of_which_something_failed_the_rest_is_wanted() -> None:
    earlier = Earlier(["whole.tar", "torn.TAR", "s3://b/part.tar", "new.tar", "in.tar/of.tar"])
    for name in (
        "whole.tar/0.jpg",
        "torn.TAR/x/0.jpg",
        "s3://b/part.tar/0.jpg",
        "in.tar/of.tar/0.jpg",
        "other.tar/1.jpg",
    ):
        earlier.add(name, failed=False)
    earlier.add("torn.TAR", failed=True)
    earlier.add("s3://b/part.tar/1.jpg", failed=True)
    assert earlier.members("whole.tar") is None
    assert earlier.members("in.tar/of.tar") is None
    assert earlier.members("torn.TAR") == {"x/0.jpg"}
    assert earlier.members("s3://b/part.tar") == {"0.jpg"}
    assert earlier.members("new.tar") == set()
