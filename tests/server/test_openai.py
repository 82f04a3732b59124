"""OpenAI's dialect, asked by its own client for Python."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from captioner.inference.captioner import Captioner
from captioner.options import DecodeOptions
from server.running import HalfSent, Running, Start, base64_of, jpeg, until


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)


def asking(*pictures: bytes, text: str = "What is in this picture?") -> list[Any]:
    """Messages with pictures, as its documentation has them."""
    content: list[Any] = [{"type": "text", "text": text}]
    for picture in pictures:
        content.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64_of(picture)}"}})
    return [{"role": "user", "content": content}]


def test_what_there_is(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["captioner"]
    assert client.models.retrieve("captioner").owned_by == "captioner"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_a_caption(client: openai.OpenAI, model: Captioner) -> None:
    answer = client.chat.completions.create(model="captioner", messages=asking(jpeg(1)), max_tokens=300, temperature=0)
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", model.caption(jpeg(1)).text)
    assert choice.finish_reason == "stop"
    assert answer.usage
    assert answer.usage.completion_tokens > 0
    assert answer.model_extra
    assert "cannot steer" in answer.model_extra["captioner"]["note"]


def test_several_pictures_have_a_line_each(client: openai.OpenAI, model: Captioner) -> None:
    earlier: list[Any] = [*asking(jpeg(0)), {"role": "assistant", "content": "A dog"}]
    answer = client.chat.completions.create(model="captioner", messages=[*earlier, *asking(jpeg(1), jpeg(2))])
    assert answer.choices[0].message.content == "\n".join(model.caption(jpeg(index)).text for index in (1, 2))


def test_several_choices(client: openai.OpenAI, model: Captioner) -> None:
    answer = client.chat.completions.create(model="captioner", messages=asking(jpeg(3)), n=4)
    best = model.caption(jpeg(3), DecodeOptions(num_captions=4, beam_size=4))
    assert [choice.message.content for choice in answer.choices] == [best.text, *(c.text for c in best.alternatives)]


def test_a_stream(client: openai.OpenAI, model: Captioner) -> None:
    given: dict[str, Any] = {"model": "captioner", "messages": asking(jpeg(2)), "stream": True}
    chunks = list(client.chat.completions.create(**given, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == model.caption(jpeg(2)).text
    assert deltas[0].role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens > 0
    assert len(chunks) > 4


def test_begin_with_is_obeyed(client: openai.OpenAI, model: Captioner) -> None:
    messages = asking(jpeg(4), text='Start with "the man".')
    answer = client.chat.completions.create(model="captioner", messages=messages)
    assert answer.choices[0].message.content == model.caption(jpeg(4), prompt="the man").text


def test_structured_output(client: openai.OpenAI, model: Captioner) -> None:
    schema = {"type": "object", "properties": {"alt_text": {"type": "string"}}, "required": ["alt_text"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "alt", "schema": schema}}
    answer = client.chat.completions.create(model="captioner", messages=asking(jpeg(5)), response_format=form)
    assert json.loads(answer.choices[0].message.content or "") == {"alt_text": model.caption(jpeg(5)).text}
    plain: Any = {"type": "json_object"}
    answer = client.chat.completions.create(model="captioner", messages=asking(jpeg(5)), response_format=plain)
    assert json.loads(answer.choices[0].message.content or "")["caption"] == model.caption(jpeg(5)).text


def test_an_address_as_a_text_and_a_message_without_parts(server: Running, model: Captioner) -> None:
    url = f"data:image/jpeg;base64,{base64_of(jpeg(6))}"
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": url}]},
        {"role": "user", "content": "?"},
    ]
    answer = server.post("/v1/chat/completions", {"model": "captioner", "messages": messages}).json()
    assert answer["choices"][0]["message"]["content"] == model.caption(jpeg(6)).text


@pytest.mark.parametrize(
    ("given", "error", "reason"),
    [
        ({"model": "gpt-4o", "messages": asking(jpeg())}, openai.NotFoundError, "model 'gpt-4o' not found"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, openai.BadRequestError, "no picture in the request"),
        ({"messages": []}, openai.BadRequestError, "no picture in the request"),
        ({"messages": asking(b"no picture")}, openai.BadRequestError, "picture 1: not a picture"),
        ({"messages": asking(jpeg(), jpeg()[:200])}, openai.BadRequestError, "picture 2: "),
        ({"messages": asking(jpeg()), "n": 50}, openai.BadRequestError, "n must be a whole number"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, openai.BadRequestError, "image_url"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_those_that_its_client_knows(
    client: openai.OpenAI, given: dict[str, Any], error: type[openai.APIStatusError], reason: str, stream: bool
) -> None:
    with pytest.raises(error, match=reason) as caught:
        client.chat.completions.create(**{"model": "captioner", **given}, stream=stream)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "messages", ["text", [3], [{"role": "user", "content": 3}], [{"role": "user", "content": [3]}]]
)
def test_requests_of_a_wrong_form(server: Running, messages: object) -> None:
    answer = server.post("/v1/chat/completions", {"model": "captioner", "messages": messages})
    assert answer.status_code == 400
    assert "message" in answer.json()["error"]


def test_a_token_is_its_api_key(start: Start) -> None:
    address = f"{start(token='secret').address}/v1"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=address, api_key="wrong", max_retries=0).models.list()
    assert openai.OpenAI(base_url=address, api_key="secret", max_retries=0).models.list().data


def test_a_full_queue_is_an_error_after_which_it_tries_again(start: Start) -> None:
    server = start(limits={"queue": 1})
    client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)
    taken = HalfSent(server.address, "/caption", {"image": base64_of(jpeg())})
    until(lambda: server.working() == 1)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="captioner", messages=asking(jpeg()))
    assert taken.answer()[0] == 200
