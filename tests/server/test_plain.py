"""captioner's own dialect."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from captioner.inference.captioner import Captioner
from captioner.options import DecodeOptions
from server.running import Running, Start, base64_of, jpeg


def test_a_form_with_one_picture(server: Running, model: Captioner) -> None:
    answer = server.post("/caption", files={"image": ("dog.jpg", jpeg(1))})
    [row] = answer.json()["results"]
    assert (answer.status_code, answer.json()["model"]) == (200, "captioner")
    alone = model.caption(jpeg(1)).to_dict()
    assert row.keys() == {"name", *alone}
    assert (row["name"], row["caption"]) == ("dog.jpg", alone["caption"])
    assert row["logprob"] == pytest.approx(alone["logprob"], abs=1e-3)


def test_a_form_with_several_pictures_and_options(server: Running, model: Captioner) -> None:
    files = [("image", (f"{index}.jpg", jpeg(index))) for index in range(3)]
    answer = server.post("/caption", files=files, data={"strategy": "greedy", "max_length": "4", "prompt": "a dog"})
    rows = answer.json()["results"]
    options = DecodeOptions("greedy", max_length=4)
    assert [row["caption"] for row in rows] == [model.caption(jpeg(i), options, prompt="a dog").text for i in range(3)]
    assert [row["name"] for row in rows] == ["0.jpg", "1.jpg", "2.jpg"]


def test_json_with_base64(server: Running, model: Captioner) -> None:
    images = [base64_of(jpeg(index)) for index in range(3)]
    rows = server.post("/caption", {"images": images, "num_captions": 2}).json()["results"]
    assert [row["caption"] for row in rows] == [model.caption(jpeg(index)).text for index in range(3)]
    assert [len(row["alternatives"]) for row in rows] == [1, 1, 1]
    assert server.post("/caption", {"image": images[0]}).json()["results"][0]["caption"] == rows[0]["caption"]


def test_a_broken_picture_among_several_gets_an_error_and_the_others_captions(server: Running) -> None:
    answer = server.post("/caption", {"images": [base64_of(jpeg(0)), base64_of(b"no picture"), base64_of(jpeg(1))]})
    assert answer.status_code == 200
    assert ["caption" in row for row in answer.json()["results"]] == [True, False, True]
    assert answer.json()["results"][1]["error"].startswith("picture 2: not a picture")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"image": base64_of(b"no picture")}, "picture 1: not a picture"),
        ({"image": "?"}, "picture 1: is not base64"),
        ({"image": base64_of(jpeg()[:300])}, "picture 1: "),
        ({}, "no picture in the request"),
        ({"images": []}, "no picture in the request"),
        ({"image": base64_of(jpeg()), "beams": 3}, "no option 'beams'"),
        ({"image": base64_of(jpeg()), "prompt": "unicorn"}, "unicorn"),
        ({"image": base64_of(jpeg()), "prompt": 3}, "prompt must be a text"),
        ({"image": base64_of(jpeg()), "prompt": "a " * 1000}, "prompt must have at most"),
        ({"image": "https://example.org/a.jpg"}, "fetches nothing"),
        ({"paths": ["a.jpg"]}, "--folder"),
        ([1], "must be a JSON object"),
    ],
)
def test_what_is_wrong_is_said(server: Running, body: object, reason: str) -> None:
    answer = server.post("/caption", body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert reason in answer.json()["error"]


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"--x\r\n"])
def test_a_body_that_is_not_json_is_refused(server: Running, content: bytes) -> None:
    assert server.post("/caption", content=content).json() == {"error": "the body of the request is not JSON"}


def test_texts_that_are_no_valid_unicode_are_repeated_as_escapes(server: Running) -> None:
    r"""JSON may hold \udc80 and other halves of characters, which no encoding of text has."""
    for path, body in (
        ("/score", rb'{"image": "%s", "sentences": ["a dog \udc80"]}' % base64_of(jpeg()).encode()),
        ("/api/generate", rb'{"model": "\udc80", "images": []}'),
        ("/v1/chat/completions", rb'{"model": "\ud83d\udc80 \udc80"}'),
        ("/caption", rb'{"image": "\udc80"}'),
        ("/caption", rb'{"\udc80": 1}'),
    ):
        answer = server.post(path, content=body)
        assert answer.status_code in (200, 400, 404), answer.text
        assert answer.json()


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_a_form_that_is_none_is_refused(server: Running, kind: str) -> None:
    answer = server.post("/caption", content=b"hello", headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert "error" in answer.json()


def test_scores(server: Running, model: Captioner) -> None:
    sentences = ["a dog runs", "a unicorn", "the cat sits"]
    answer = server.post("/score", {"image": base64_of(jpeg(2)), "sentences": sentences}).json()
    [row] = answer["results"]
    expected = model.rank(jpeg(2), sentences)
    assert [score["sentence"] for score in row["scores"]] == [caption.text for caption in expected]
    assert [score["unknown"] for score in row["scores"]] == [list(caption.unknown) for caption in expected]
    form = server.post("/score", files={"image": jpeg(2)}, data={"sentences": sentences}).json()
    assert form["results"][0]["scores"] == row["scores"]


@pytest.mark.parametrize("sentences", [None, [], [""], [3], "", ["a"] * 101, ["a " * 1000]])
def test_sentences_must_be_texts(server: Running, sentences: object) -> None:
    answer = server.post("/score", {"image": base64_of(jpeg()), "sentences": sentences})
    assert answer.status_code == 400
    assert "sentences" in answer.json()["error"]


def test_paths_of_a_folder(start: Start, pictures: list[Path], model: Captioner) -> None:
    folder = pictures[0].parent
    (folder / "outside.jpg").symlink_to("/etc/passwd")
    server = start(folder)
    rows = server.post("/caption", {"paths": ["picture3.jpg", "../../etc/passwd", "outside.jpg"]}).json()["results"]
    assert rows[0]["caption"] == model.caption(pictures[3]).text
    assert rows[1]["error"] == "../../etc/passwd: no such file in the folder of this server"
    assert rows[2]["error"] == "outside.jpg: no such file in the folder of this server"
    assert str(folder) not in json.dumps(rows)


def test_what_the_server_was_started_with_holds_where_a_request_gives_nothing(start: Start, model: Captioner) -> None:
    options = DecodeOptions("greedy", max_length=5)
    server = start(options=options, prompt="the man")
    [row] = server.post("/caption", files={"image": jpeg(4)}).json()["results"]
    assert row["caption"] == model.caption(jpeg(4), options, prompt="the man").text
    [row] = server.post("/caption", files={"image": jpeg(4)}, data={"prompt": ""}).json()["results"]
    assert row["caption"] == model.caption(jpeg(4), options).text


def test_requests_that_come_together_get_what_they_would_get_alone(server: Running, model: Captioner) -> None:
    """Among them are broken pictures, which fail alone."""

    def ask(index: int) -> object:
        data = b"broken" if index % 5 == 4 else jpeg(index)
        answer = server.post("/caption", files={"image": data})
        return answer.json()["results"][0]["caption"] if answer.status_code == 200 else answer.status_code

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(ask, range(40)))
    assert found == [400 if i % 5 == 4 else model.caption(jpeg(i)).text for i in range(40)]


def test_limits_of_pictures(start: Start) -> None:
    server = start(limits={"max_pictures": 2, "max_megapixels": 0.005})
    answer = server.post("/caption", {"images": [base64_of(jpeg())] * 3})
    assert (answer.status_code, answer.json()["error"]) == (413, "3 pictures are more than the 2 of a request")
    assert server.post("/caption", files=[("image", jpeg())] * 3).status_code == 400  # by the reader of forms
    answer = server.post("/caption", files={"image": jpeg()})
    assert answer.status_code == 400
    assert "96 x 72 is more than 0.005 million pixels" in answer.json()["error"]


def test_health_and_metrics(start: Start) -> None:
    server = start()
    assert server.client.get("/health").json().keys() == {"status", "model", "version"}
    server.post("/caption", files={"image": jpeg()})
    server.post("/caption", files={"image": b"broken"})
    metrics = server.client.get("/metrics").text
    for line in (
        'captioner_requests_total{path="/caption",status="200"} 1.0',
        'captioner_requests_total{path="/caption",status="400"} 1.0',
        *("captioner_pictures_total 1.0", "captioner_failed_pictures_total 1.0", "captioner_batch_pictures_count 1.0"),
    ):
        assert line in metrics.splitlines()


def test_the_page_describes_all_routes_and_loads_nothing_from_elsewhere(server: Running) -> None:
    page = server.client.get("/docs").text
    described = server.client.get("/openapi.json").json()["paths"]
    assert {"/caption", "/score", "/health", "/metrics", "/api/chat", "/v1/chat/completions"} <= described.keys()
    assert all(path in page for path in described)
    assert "//" not in page.replace("<!--", "")
    assert "<script" not in page
    assert server.client.get("/").status_code == server.client.head("/").status_code == 200


def test_no_picture_is_kept(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a large one, which forms usually put into a file."""
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", lambda self: pytest.fail("a file was made"))
    large = jpeg() + b"\0" * 3_000_000
    assert server.post("/caption", files={"image": large}).status_code == 200
