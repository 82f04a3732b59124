"""The dialect of OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from captioner.errors import OptionError
from captioner.server.messages import Json, body_of, picture_of
from captioner.server.ollama import asked_last, words_of
from captioner.server.service import Answer, Service

_MOST_CHOICES = 20


def router(service: Service) -> APIRouter:
    """The routes of this dialect."""
    routes = APIRouter(prefix="/v1", tags=["OpenAI"])
    model = {"id": service.name, "object": "model", "created": 0, "owned_by": "captioner"}

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        """The one model that there is."""
        return {"object": "list", "data": [model]}

    @routes.get("/models/{name}")
    async def one(name: str) -> dict[str, Any]:
        """The model of this name."""
        service.check_model(name)
        return model

    @routes.post("/chat/completions")
    async def chat(request: Request) -> Response:
        """A caption for the pictures in the last messages of a chat."""
        body = await body_of(request)
        service.check_model(body.get("model"))
        asked = asked_last(body.get("messages"))
        number = body.get("n") or 1
        if type(number) is not int or not 1 <= number <= _MOST_CHOICES:
            raise OptionError(f"n must be a whole number from 1 to {_MOST_CHOICES}")
        addresses, prompt = _parts(asked)
        fetch = service.limits.allow_fetch
        pictures = [picture_of(address, place, fetch) for place, address in enumerate(addresses, 1)]
        answer = await service.answer(pictures, prompt, _schema(body.get("response_format")), number)
        return _stream(body, service.name, answer) if body.get("stream") else _whole(service.name, answer)

    return routes


def _parts(messages: list[dict[str, Any]]) -> tuple[list[object], str]:
    """The addresses of the pictures in messages, and all their text. Raises OptionError."""
    addresses: list[object] = []
    texts: list[str] = []
    for message in messages:
        content = message.get("content") or []
        if not isinstance(content, str | list):
            raise OptionError("the content of a message must be a text or a list of parts")
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif kind == "image_url":
                place = part.get("image_url")  # an object, or, of some apps, the address itself
                addresses.append(place.get("url") if isinstance(place, dict) else place)
            else:
                raise OptionError("the parts of a message must be of the types text and image_url")
    return addresses, "\n".join(texts)


def _schema(response_format: object) -> object:
    """What the answer is to look like: a JSON schema, "json", or None for plain text."""
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if not isinstance(response_format, Mapping) or kind in (None, "text"):
        return None
    wrapped = response_format.get("json_schema")
    return (wrapped.get("schema") if isinstance(wrapped, Mapping) else None) or "json"


def _head(name: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}


def _usage(answer: Answer) -> dict[str, int]:
    return {"prompt_tokens": 0, "completion_tokens": answer.tokens, "total_tokens": answer.tokens}


def _whole(name: str, answer: Answer) -> Json:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
        for index, text in enumerate(answer.texts)
    ]
    head = _head(name, "chat.completion")
    return Json({**head, "choices": choices, "usage": _usage(answer), "captioner": answer.about})


def _stream(body: Mapping[str, Any], name: str, answer: Answer) -> StreamingResponse:
    """The words as server-sent events; the last event of each choice says why it ends, the very last is [DONE]."""
    head, options = _head(name, "chat.completion.chunk"), body.get("stream_options")

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({**head, 'choices': choices, **more}, ensure_ascii=False)}\n\n"

    def chunk(index: int, delta: dict[str, str], reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}]

    def events() -> Iterator[str]:
        for index, text in enumerate(answer.texts):
            yield event(chunk(index, {"role": "assistant", "content": ""}))
            for word in words_of(text):
                yield event(chunk(index, {"content": word}))
            yield event(chunk(index, {}, "stop"), captioner=answer.about)
        if isinstance(options, Mapping) and options.get("include_usage"):
            yield event([], usage=_usage(answer))
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
