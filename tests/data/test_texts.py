"""Captions without pictures are read from every layout, or refused in one line that names the file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from captioner.data.texts import read_texts
from captioner.errors import DataError

GROUPS: list[dict[str, Any]] = [
    {"captions": ["A dog runs .", " Two dogs "], "source": "b"},
    {"captions": ["一只狗"], "source": "a", "id": 3},
    {"captions": ["a cat", "", "  "]},
    {"captions": []},
    {"captions": [" "], "source": "nobody"},
]
LINES = "".join(json.dumps(group) + "\n\n" for group in GROUPS)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def write(name: str, content: str | bytes) -> Path:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


@pytest.mark.parametrize("packed", [False, True])
def test_groups_of_captions_with_their_sources(write: Callable[..., Path], packed: bool) -> None:
    path = write("texts.jsonl.gz", gzip.compress(LINES.encode())) if packed else write("texts.jsonl", LINES)
    texts = read_texts(path)
    assert texts.captions == [["A dog runs .", "Two dogs"], ["一只狗"], ["a cat"]]
    assert texts.sources == ["", "a", "b"]
    assert texts.source == [2, 1, 0]
    assert len(texts) == 4
    assert texts.origin == {
        "file": path.name,
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "photographs": 3,
        "sources": ["", "a", "b"],
        "captions": 4,
    }


def test_a_text_file_has_a_caption_in_each_line(write: Callable[..., Path]) -> None:
    texts = read_texts(write("captions.txt", "\ufeffA dog runs .\r\n\r\n  two men, one hat\n"))
    assert texts.captions == [["A dog runs ."], ["two men, one hat"]]
    assert (texts.source, texts.sources) == ([0, 0], [""])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("Flickr8k.token.txt", "1.jpg#0\tA dog .\n1.jpg#1\tTwo, dogs\n2.jpg#0\tA cat\n"),
        ("zhc.caption.txt", "1.jpg#zhc#0 A dog .\n1.jpg#zhc#1 Two, dogs\n2.jpg#zhc#0 A cat\n"),
        ("captions.txt", 'image,caption\n1.jpg,A dog .\n1.jpg,"Two, dogs"\n2.jpg,A cat\n'),
        ("captions.csv", 'image,caption\n1,A dog .\n1,"Two, dogs"\n2,A cat\n'),
        (
            "coco.json",
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
                    "annotations": [
                        {"image_id": 1, "caption": "A dog ."},
                        {"image_id": 1, "caption": "Two, dogs"},
                        {"image_id": 2, "caption": "A cat"},
                    ],
                }
            ),
        ),
    ],
)
def test_names_of_pictures_group_the_captions(write: Callable[..., Path], name: str, content: str) -> None:
    texts = read_texts(write(name, content))
    assert texts.captions == [["A dog .", "Two, dogs"], ["A cat"]]
    assert (texts.source, texts.sources, texts.origin["photographs"]) == ([0, 0], [""], 2)


def test_half_a_character_is_replaced(write: Callable[..., Path]) -> None:
    """A checkpoint's vocabulary could not be written with it."""
    texts = read_texts(write("t.jsonl", '{"captions": ["a \\ud83d dog"], "source": "\\ud83d"}'))
    (caption,) = texts.captions[0]
    assert caption.encode()
    assert texts.sources[0].encode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a dog runs", "Expecting value"),
        ('{"captions": ["a"]', "Expecting"),
        ('["a dog"]', ""),
        ("3", ""),
        ('{"caption": "a dog"}', "'captions'"),
        ('{"captions": "a dog"}', "captions must be a list of texts, and source a text"),
        ('{"captions": {"a dog": 1}}', "captions must be a list of texts, and source a text"),
        ('{"captions": ["a dog", 3]}', "captions must be a list of texts, and source a text"),
        ('{"captions": ["a dog"], "source": null}', "captions must be a list of texts, and source a text"),
        ("[" * 100_000, "recursion"),
    ],
    ids=lambda value: value[:40],
)
def test_a_line_that_is_no_group_is_named(write: Callable[..., Path], line: str, reason: str) -> None:
    path = write("t.jsonl", f'{{"captions": ["fine"]}}\n{line}\n')
    with pytest.raises(DataError) as caught:
        read_texts(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: line 2 is not a group of captions, such as {{")
    assert reason in message
    assert len(message) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", "\n", "holds no captions"),
        ("t.jsonl", '{"captions": [" "]}', "holds no captions"),
        ("t.txt", " \n\n", "holds no captions"),
        ("t.jsonl.gz", b"no gzip", "not a text file that gzip compressed"),
        ("t.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "not a text file that gzip compressed"),
        ("t.jsonl.gz", gzip.compress(b"\xff\xfe\xfd", mtime=0), "not a text file that gzip compressed"),
        ("t.txt", b"caf\xe9\x81\xff\xfe", "not a text file in UTF-8"),
        ("t.json", "{}", "needs a picture.s name"),
    ],
)
def test_what_holds_no_captions_is_refused(
    write: Callable[..., Path], name: str, content: str | bytes, message: str
) -> None:
    path = write(name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_texts(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.txt", "no such file of captions"), ("none.jsonl", "no such file"), ("none.csv", "no such captions file")],
)
def test_a_file_that_is_not_there(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_texts(tmp_path / name)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; give a file of captions"):
        read_texts(tmp_path)
