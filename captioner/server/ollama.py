"""The dialect of Ollama: https://docs.ollama.com/api"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from captioner import __version__
from captioner.errors import CheckpointError, OptionError
from captioner.network.header import size_of
from captioner.server.messages import NO_STEERING, Json, Picture, body_of, picture_of
from captioner.server.service import Answer, Service


def router(service: Service) -> APIRouter:
    """The routes of this dialect."""
    routes = APIRouter(prefix="/api", tags=["Ollama"])
    name = f"{service.name}:latest"

    @routes.get("/version")
    async def version() -> dict[str, str]:
        """The version of captioner."""
        return {"version": __version__}

    @routes.get("/tags")
    async def tags() -> dict[str, Any]:
        """The one model that there is."""
        return {"models": [{"name": name, "model": name, **_file(service), "details": _DETAILS}]}

    @routes.post("/show")
    async def show(request: Request) -> dict[str, Any]:
        """What there is to know of the model."""
        body = await body_of(request)
        service.check_model(body.get("model") or body.get("name"))
        config = service.model.config
        info: dict[str, Any] = {"general.architecture": "captioner", "general.basename": service.name}
        info |= {"captioner.encoder": config.encoder, "captioner.vocabulary_size": config.vocabulary_size}
        info["captioner.note"] = NO_STEERING
        described = {"details": _DETAILS, "model_info": info, "capabilities": ["completion", "vision"]}
        modified = _file(service)["modified_at"]
        return {"modelfile": "", "parameters": "", "template": "", "modified_at": modified, **described}

    @routes.post("/generate")
    async def generate(request: Request) -> Response:
        """A caption for the pictures in `images`."""
        started, body = time.perf_counter_ns(), await body_of(request)
        service.check_model(body.get("model"))
        images, prompt = _images(service, [body]), _text(body.get("prompt")) + "\n" + _text(body.get("system"))
        if not images and not body.get("prompt"):  # so clients ask that a model be loaded
            return Json({**_head(name), "response": "", "done": True, "done_reason": "load"})
        answer = await service.answer(images, prompt.strip(), body.get("format"))
        return _reply(body, name, answer, started, lambda text: {"response": text})

    @routes.post("/chat")
    async def chat(request: Request) -> Response:
        """A caption for the pictures in the last messages of a chat."""
        started, body = time.perf_counter_ns(), await body_of(request)
        service.check_model(body.get("model"))
        asked = asked_last(body.get("messages", []))
        if not body.get("messages"):
            empty = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "load"}
            return Json({**_head(name), **empty})
        prompt = "\n".join(_text(one.get("content")) for one in asked).strip()
        answer = await service.answer(_images(service, asked), prompt, body.get("format"))
        return _reply(body, name, answer, started, lambda text: {"message": {"role": "assistant", "content": text}})

    return routes


def asked_last(messages: object) -> list[dict[str, Any]]:
    """The messages after the last answer: apps send pictures and the question about them in messages of their own."""
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise OptionError("messages must be a list of objects")
    answers = [place for place, one in enumerate(messages) if one.get("role") == "assistant"]
    return messages[answers[-1] + 1 :] if answers else messages


_DETAILS = {
    **{"parent_model": "", "format": "safetensors", "family": "captioner", "families": ["captioner"]},
    **{"parameter_size": "", "quantization_level": ""},
}


def _file(service: Service) -> dict[str, Any]:
    """Time, size and digest of the model's file; of a model without one, what stands for nothing."""
    path = service.model.path
    try:
        digest = service.model.digest()
        status = path.stat() if path else None
    except (CheckpointError, OSError):  # it was replaced or removed since
        status = None
    if not path or not status:
        return {"modified_at": _time(0), "size": 0, "digest": ""}
    return {"modified_at": _time(status.st_mtime), "size": size_of(path), "digest": digest}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")


def _head(name: str) -> dict[str, Any]:
    return {"model": name, "created_at": _time(time.time())}


def _text(value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise OptionError("a prompt must be a text")
    return value or ""


def _images(service: Service, asked: list[dict[str, Any]]) -> list[Picture]:
    several = [one.get("images") or [] for one in asked]
    if not all(isinstance(images, list) for images in several):
        raise OptionError("images must be a list of pictures in base64")
    given = [image for images in several for image in images]
    return [picture_of(image, number, service.limits.allow_fetch) for number, image in enumerate(given, 1)]


def _reply(body: Mapping[str, Any], name: str, answer: Answer, started: int, said: Any) -> Response:
    """The answer at once, or as a stream of words: one JSON object a line, the last of which says that it is done."""
    [text] = answer.texts
    took = time.perf_counter_ns() - started
    counts = {"prompt_eval_count": 0, "prompt_eval_duration": 0, "eval_count": answer.tokens, "eval_duration": took}
    end = {"done": True, "done_reason": "stop", "total_duration": took, "load_duration": 0, **counts}
    end["captioner"] = answer.about
    if body.get("stream") is False:
        return Json({**_head(name), **said(text), **end})

    def lines() -> Iterator[str]:
        for word in words_of(text):
            yield json.dumps({**_head(name), **said(word), "done": False}, ensure_ascii=False) + "\n"
        yield json.dumps({**_head(name), **said(""), **end}, ensure_ascii=False) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def words_of(text: str) -> Iterator[str]:
    """The words of a text, each with the space before it."""
    for number, word in enumerate(text.split(" ")):
        yield f" {word}" if number else word
