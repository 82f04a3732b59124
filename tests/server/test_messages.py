"""What requests hold, and what they may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from captioner.errors import ImageError, OptionError
from captioner.inference.results import Caption, Tag
from captioner.options import DecodeOptions
from captioner.server.messages import as_json, begin_with, options_of, picture_in, picture_of

CAPTION = Caption(
    "A dog", ("a", "dog"), (0.5, 0.5), 0.5, -2.0, confidence=0.7, tags=(Tag("dog", 0.9), Tag("snow", 0.4))
)
LABELS = [{"name": "dog", "confidence": 0.9}, {"name": "snow", "confidence": 0.4}]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ('Begin with "a dog in".', "a dog in"),
        ("Describe it. Start the sentence with the words 'a man', please", "a man"),
        ("Beginning with: “two people”", "two people"),
        ("请以“一只狗”开头", "一只狗"),
        # PhotoPrism's own prompt asks for no words.
        (
            "Create a caption with exactly one sentence. Begin with the main subject and clear action. Avoid fillers.",
            "",
        ),
        ("Begin with the subject's action and don't stop.", ""),
        ('Do not begin. Answer with "yes" or "no".', ""),
        ("Describe the picture", ""),
    ],
)
def test_words_to_begin_with_stand_in_quotation_marks(prompt: str, words: str) -> None:
    assert begin_with(prompt) == words


@pytest.mark.parametrize("text", ["aGVs\nbG8=", "data:image/png;base64,aGVsbG8=", " aGVsbG8= "])
def test_base64_is_read_as_apps_send_it(text: str) -> None:
    assert picture_of(text, 1, False).read() == b"hello"


@pytest.mark.parametrize("text", ["no base64!", "aGVsbG8", "data:image/png,hello", "data:image/png;base64", "图"])
def test_what_is_not_base64_is_said(text: str) -> None:
    with pytest.raises(ImageError, match="picture 2: "):
        picture_of(text, 2, False).read()


@pytest.mark.parametrize("given", [None, 3, "", ["aGVsbG8="], {"url": "x"}])
def test_a_picture_must_be_a_text(given: object) -> None:
    with pytest.raises(OptionError, match="picture 1: must be a text"):
        picture_of(given, 1, True)


@pytest.mark.parametrize(
    "address", ["http://example.org/a.jpg", "https://example.org", "file:///etc/passwd", "ftp://a/b"]
)
def test_addresses_are_refused_unless_allowed(address: str) -> None:
    with pytest.raises(OptionError, match="fetches nothing"):
        picture_of(address, 1, False)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "http://127.0.0.1:1/a.jpg",
            "http://localhost/",
            "http://[::1]/",
            "http://169.254.169.254/latest",
            "http://0/",
        ),
        *(
            "http://10.0.0.1/",
            "http://[::ffff:127.0.0.1]/",
            "http://2130706433/",
            "file:///etc/passwd",
            "ftp://127.0.0.1/",
        ),
    ],
)
def test_private_addresses_are_refused_even_if_fetching_is_allowed(address: str) -> None:
    with pytest.raises(ImageError, match="cannot be fetched"):
        picture_of(address, 1, True).read()


def test_paths_stay_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for place in (folder / "a.jpg", folder / "sub" / "b.jpg", tmp_path / "secret.jpg", tmp_path / "photos2.jpg"):
        place.write_bytes(place.name.encode())
    (folder / "inside.jpg").symlink_to("sub/b.jpg")
    (folder / "outside.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "up").symlink_to(tmp_path)
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")

    def read(path: object) -> bytes:
        return picture_in(folder, path).read()

    assert read("a.jpg") == read("sub/../a.jpg") == read(folder / "a.jpg") == b"a.jpg"
    assert read("inside.jpg") == b"b.jpg"
    escapes = (
        "../secret.jpg",
        "outside.jpg",
        "up/secret.jpg",
        str(tmp_path / "secret.jpg"),
        "../photos2.jpg",
        "/etc/passwd",
    )
    others = ("none.jpg", "", ".", "sub", "a.jpg\0", "circle.jpg", "x" * 5000, None, 3, ["a.jpg"])
    for path in (*escapes, *others):
        with pytest.raises(ImageError, match="no such file in the folder of this server"):
            read(path)
    with pytest.raises(OptionError, match="--folder"):
        picture_in(None, "a.jpg")


def test_options_come_as_numbers_and_as_texts() -> None:
    expected = DecodeOptions(beam_size=5, allow_stutter=True, min_confidence=0.5, people="neutral")
    given: dict[str, Any] = {"beam_size": 5, "allow_stutter": True, "min_confidence": 0.5, "people": "neutral"}
    assert options_of(given, DecodeOptions()) == expected
    assert options_of({name: str(value) for name, value in given.items()}, DecodeOptions()) == expected
    assert options_of({"beam_size": 5}, DecodeOptions(tags=3)) == DecodeOptions(beam_size=5, tags=3)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"beams": 3}, "no option 'beams'"),
        ({"beam_size": "many"}, "beam_size must be a whole number"),
        ({"allow_stutter": "perhaps"}, "allow_stutter must be true or false"),
        ({"beam_size": None}, "beam_size must be"),
        ({"strategy": "sample", "num_captions": 21}, "num_captions must be at most 20 on a server"),
        ({"beam_size": 21}, "beam_size must be at most 20 on a server"),
        ({"avoid": "dog," * 1000}, "avoid must have at most 1,000 characters"),
        ({"num_captions": 5}, "a beam of 3 cannot give 5"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        options_of(given, DecodeOptions())


def test_what_the_server_was_started_with_may_be_more() -> None:
    assert options_of({"seed": 1}, DecodeOptions(beam_size=50)) == DecodeOptions(beam_size=50, seed=1)


def test_a_long_prompt_is_read_quickly() -> None:
    assert begin_with("begin start with " * 1_000_000) == ""


def test_json_without_a_schema_has_a_form_of_its_own() -> None:
    assert json.loads(as_json(CAPTION, "json")) == {"caption": "A dog", "labels": LABELS}


def test_a_schema_is_filled_in_as_far_as_its_names_are_known() -> None:
    text, number = {"type": "string"}, {"type": "number"}
    properties = {
        **{"description": text, "confidence": number, "mood": text},
        **{"tags": {"type": "array", "items": text}, "labels": {"type": "array", "items": {"type": "object"}}},
    }
    schema = {"type": "object", "properties": properties, "required": ["description"]}
    expected = {"description": "A dog", "confidence": 0.7, "tags": ["dog", "snow"], "labels": LABELS}
    assert json.loads(as_json(CAPTION, schema)) == expected
    with pytest.raises(OptionError, match="cannot fill in 'mood'"):
        as_json(CAPTION, {**schema, "required": ["mood"]})
