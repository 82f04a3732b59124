"""Which pictures have rows from earlier runs."""

from pathlib import Path

import pytest

from captioner.bulk.earlier import Earlier, key_of


def test_a_picture_is_known_by_its_absolute_path_or_its_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    earlier = Earlier()
    for name in ("photos/a.jpg", "s3://b/x/../c.jpg", "odd\udcff.jpg"):
        earlier.add(name, failed=False)
    earlier.add("photos/broken.jpg", failed=True)
    assert earlier.has(f"{tmp_path}/photos/a.jpg")
    assert earlier.has("./photos/../photos/a.jpg")
    assert earlier.has("s3://b/x/../c.jpg")
    assert not earlier.has("s3://b/c.jpg")
    assert earlier.has("odd\\udcff.jpg"), "as parquet holds it"
    assert not earlier.has("photos/broken.jpg"), "it is tried again"
    assert earlier.failed == {key_of("photos/broken.jpg")}


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
