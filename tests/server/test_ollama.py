"""Ollama's dialect, asked by Ollama's own client for Python, and by PhotoPrism's requests."""

from __future__ import annotations

import json
from pathlib import Path

import ollama
import pytest

from captioner.export.folder import export_model
from captioner.inference.captioner import Captioner, load
from captioner.options import DecodeOptions
from server.running import Running, Start, base64_of, jpeg


@pytest.fixture(scope="module")
def client(server: Running) -> ollama.Client:
    return ollama.Client(server.address)


def test_what_there_is(client: ollama.Client, start: Start, tiny_checkpoint_file: Path) -> None:
    [model] = client.list().models
    assert model.model == "captioner:latest"
    named = start_named(start, tiny_checkpoint_file)
    [model] = named.list().models
    assert (model.model, model.size) == ("tiny:latest", tiny_checkpoint_file.stat().st_size)
    shown = named.show("tiny")
    assert shown.capabilities == ["completion", "vision"]
    assert shown.modelinfo
    assert "cannot steer" in shown.modelinfo["captioner.note"]
    for name in ("tiny", "tiny:latest", "captioner", "captioner:latest"):
        assert named.generate(name, images=[jpeg()]).response


@pytest.mark.slow
def test_an_exported_model_is_called_as_its_folder(start: Start, tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    folder = export_model(tiny_checkpoint_file, tmp_path / "german", bits=8)
    [model] = ollama.Client(start(model=load(folder)).address).list().models
    assert (model.model, model.size) == ("german:latest", sum(file.stat().st_size for file in folder.iterdir()))


def start_named(start: Start, file: Path) -> ollama.Client:
    """A client of a server whose model has a file, and with it a name."""
    return ollama.Client(start(model=load(file, "cpu", "float32")).address)


def test_generate(client: ollama.Client, model: Captioner) -> None:
    answer = client.generate("captioner", "Describe the picture", images=[jpeg(1)])
    assert answer.response == model.caption(jpeg(1)).text
    assert (answer.done, answer.done_reason, answer.model) == (True, "stop", "captioner:latest")
    assert answer.eval_count
    assert answer.total_duration


def test_generate_as_a_stream(client: ollama.Client, model: Captioner) -> None:
    parts = list(client.generate("captioner", "Describe", images=[jpeg(2)], stream=True))
    assert "".join(part.response for part in parts) == model.caption(jpeg(2)).text
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 2


@pytest.mark.parametrize("stream", [False, True])
def test_chat(client: ollama.Client, model: Captioner, stream: bool) -> None:
    messages = [
        {"role": "system", "content": "You describe pictures."},
        {"role": "user", "content": "Image 1:", "images": [jpeg(0)]},
        {"role": "assistant", "content": "A dog"},
        # As LLM Vision for Home Assistant sends them.
        {"role": "user", "content": "Image 1:", "images": [jpeg(1)]},
        {"role": "user", "content": "Image 2:", "images": [jpeg(2)]},
        {"role": "user", "content": "What do you see?"},
    ]
    answer = client.chat("captioner", messages, stream=stream)
    text = "".join(part.message.content or "" for part in answer) if stream else answer.message.content
    assert text == "\n".join(model.caption(jpeg(index)).text for index in (1, 2))


def test_the_answer_says_that_a_prompt_cannot_steer(server: Running) -> None:
    body = {"model": "captioner", "images": [base64_of(jpeg())], "stream": False}
    about = server.post("/api/generate", {**body, "prompt": "Write a poem"}).json()["captioner"]
    assert "cannot steer" in about["note"]
    assert about["pictures"][0]["caption"]
    assert "note" not in server.post("/api/generate", body).json()["captioner"]
    *_, last = server.post("/api/generate", {**body, "prompt": "x", "stream": True}).text.splitlines()
    assert "cannot steer" in json.loads(last)["captioner"]["note"]


def test_begin_with_is_obeyed(client: ollama.Client, model: Captioner) -> None:
    answer = client.generate("captioner", 'Begin with "the cat sits".', images=[jpeg(3)])
    assert answer.response == model.caption(jpeg(3), prompt="the cat sits").text
    with pytest.raises(ollama.ResponseError, match="unicorn"):
        client.generate("captioner", 'Begin with "a unicorn".', images=[jpeg(3)])


def test_photoprism_gets_captions_and_labels(start: Start) -> None:
    """Its requests, as it sends them, and what it reads from the answers. The tests' model knows no labels."""
    server = start()
    prompt = "Create a caption with exactly one sentence. Begin with the main subject and clear action."
    request = {"id": "1", "model": "captioner", "prompt": prompt, "suffix": "", "stream": False}
    request |= {"images": [base64_of(jpeg(5))], "options": {"temperature": 0.1}}
    answer = server.post("/api/generate", request).json()
    assert answer["response"] == server.service.model.caption(jpeg(5)).text
    labels = {"system": "You are a PhotoPrism vision model.", "format": "json", "options": {"stop": ["\n\n"]}}
    assert json.loads(server.post("/api/generate", {**request, **labels}).json()["response"])["labels"] == []


def test_structured_output(client: ollama.Client, model: Captioner) -> None:
    schema = {"type": "object", "properties": {"description": {"type": "string"}}, "required": ["description"]}
    answer = client.generate("captioner", "Describe", images=[jpeg(6)], format=schema)
    assert json.loads(answer.response) == {"description": model.caption(jpeg(6)).text}
    with pytest.raises(ollama.ResponseError, match="cannot fill in 'mood'"):
        client.generate("captioner", images=[jpeg()], format={**schema, "properties": {}, "required": ["mood"]})


@pytest.mark.parametrize(
    ("given", "status", "reason"),
    [
        ({"model": "llava", "images": [jpeg()]}, 404, "model 'llava' not found"),
        ({"model": "captioner:7b", "images": [jpeg()]}, 404, "not found"),
        ({"model": "captioner", "prompt": "Hello"}, 400, "no picture in the request"),
        ({"model": "captioner", "images": [b"no picture at all"]}, 400, "picture 1: not a picture"),
        ({"model": "captioner", "images": [jpeg(), jpeg()[:200]]}, 400, "picture 2: "),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_those_that_its_client_knows(
    client: ollama.Client, given: dict[str, object], status: int, reason: str, stream: bool
) -> None:
    with pytest.raises(ollama.ResponseError, match=reason) as caught:
        list(client.generate(**given, stream=stream))
    assert caught.value.status_code == status


@pytest.mark.parametrize(
    "body",
    [
        *({"images": "text"}, {"images": [3]}, {"images": ["?"]}, {"prompt": 3, "images": []}),
        *({"messages": "text"}, {"messages": [3]}, {"messages": [{"role": "user", "content": 3}]}),
    ],
)
def test_requests_of_a_wrong_form(server: Running, body: dict[str, object]) -> None:
    answer = server.post("/api/chat" if "messages" in body else "/api/generate", {"model": "captioner", **body})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def test_a_model_that_is_to_be_loaded_is_there(client: ollama.Client, server: Running) -> None:
    assert client.generate("captioner").done_reason == "load"
    assert client.chat("captioner").done_reason == "load"
    assert server.client.get("/api/version").json().keys() == {"version"}


def test_the_options_of_the_server_hold(start: Start, model: Captioner) -> None:
    client = ollama.Client(start(options=DecodeOptions("greedy", max_length=4), prompt="a dog").address)
    expected = model.caption(jpeg(1), DecodeOptions("greedy", max_length=4), prompt="a dog").text
    assert client.generate("captioner", images=[jpeg(1)]).response == expected
