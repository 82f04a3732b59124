"""captioner's own dialect: /caption, /score, /health, /metrics, and the page that describes them all."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from captioner import __version__
from captioner.errors import CaptionerError, OptionError
from captioner.options import DecodeOptions, option_specs
from captioner.server.batches import Captions, Scores
from captioner.server.messages import Json, Picture, body_of, check_length, form_of, options_of, picture_in, picture_of
from captioner.server.service import Service
from captioner.templates import render

_GIVEN = ("image", "images", "paths")  # what pictures are called
_MOST_SENTENCES = 100


def router(service: Service) -> APIRouter:
    """The routes of this dialect."""
    routes = APIRouter(tags=["captioner"])

    @routes.post("/caption", openapi_extra={"requestBody": _body(_options())}, response_class=Json)
    async def caption(request: Request) -> Json:
        """Captions for one or several pictures, with the options of `captioner caption`.

        Every picture gets a caption or an error. Only if none gets a caption is the status 400.
        """
        pictures, given = await _given(service, request)
        prompt = given.pop("prompt", service.prompt)
        if not isinstance(prompt, str):
            raise OptionError("prompt must be a text: the words that captions begin with")
        check_length("prompt", prompt)
        options = options_of(given, service.options)
        service.model.rules(options, prompt)
        return _rows(service, pictures, await service.ask(pictures, Captions(options, prompt)))

    @routes.post("/score", openapi_extra={"requestBody": _body(_SENTENCES)}, response_class=Json)
    async def score(request: Request) -> Json:
        """How likely the model finds given sentences for a picture: the most likely first."""
        pictures, given = await _given(service, request)
        sentences = given.pop("sentences", None)
        sentences = [sentences] if isinstance(sentences, str) else sentences
        if given:
            raise OptionError(f"no option {min(given)!r} here: only sentences")
        if not isinstance(sentences, list) or not all(isinstance(one, str) and one.strip() for one in sentences):
            raise OptionError("sentences must be a list of texts")
        if not 1 <= len(sentences) <= _MOST_SENTENCES:
            raise OptionError(f"give 1 to {_MOST_SENTENCES} sentences, not {len(sentences)}")
        for one in sentences:
            check_length("each of the sentences", one)
        return _rows(service, pictures, await service.ask(pictures, Scores(tuple(sentences))))

    @routes.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers, and with which model."""
        return {"status": "ok", "model": service.name, "version": __version__}

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Requests, pictures, batches, seconds and memory, as Prometheus reads them."""
        return Response(generate_latest(service.metrics), media_type=CONTENT_TYPE_LATEST)

    @routes.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def root() -> PlainTextResponse:
        return PlainTextResponse("captioner is running. What it answers: docs")

    return routes


def add_page(app: FastAPI) -> None:
    """A page that describes all routes. It comes from here alone: no script, and nothing of other servers."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        described = app.openapi()
        shown = [
            {"method": method.upper(), "path": path, **about, "body": _shown(about.get("requestBody"))}
            for path, methods in described["paths"].items()
            for method, about in methods.items()
        ]
        return HTMLResponse("".join(render("api.html", title=app.title, version=app.version, routes=shown)))


async def _given(service: Service, request: Request) -> tuple[list[Picture], dict[str, Any]]:
    """The pictures of a request, and what else it gives. Raises OptionError."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        pictures, given = await form_of(request, service.limits.max_pictures)
    else:
        pictures, given = [], await body_of(request)
    for kind in _GIVEN:
        several = given.pop(kind, [])
        several = several if isinstance(several, list) else [several]
        service.check_number(max(1, len(pictures) + len(several)))
        for one in several:
            place = len(pictures) + 1
            named = picture_in(service.folder, one) if kind == "paths" else None
            pictures.append(named or picture_of(one, place, service.limits.allow_fetch))
    return pictures, given


def _rows(service: Service, pictures: list[Picture], found: list[Any]) -> Json:
    """What was found for each picture. Raises the first error if there is nothing else."""
    failed = [one for one in found if isinstance(one, CaptionerError)]
    if len(failed) == len(found):
        raise failed[0]
    rows: list[dict[str, Any]] = []
    for picture, one in zip(pictures, found, strict=True):
        if isinstance(one, CaptionerError):
            rows.append({"name": picture.name, "error": str(one)})
        elif isinstance(one, list):
            scored = [{"sentence": s.text, "logprob": s.logprob, "unknown": s.unknown} for s in one]
            rows.append({"name": picture.name, "scores": scored})
        else:
            rows.append({"name": picture.name, **one.to_dict()})
    return Json({"model": service.name, "results": rows})


_KINDS = {int: "integer", float: "number", str: "string", bool: "boolean"}
_SENTENCES = {"sentences": {"type": "array", "items": {"type": "string"}, "description": "sentences to rate"}}


def _options() -> dict[str, Any]:
    """The options of captions, for the description of the interface."""
    described: dict[str, Any] = {"prompt": {"type": "string", "description": "first words of every caption"}}
    for spec in option_specs(DecodeOptions):
        about = {"description": spec.help, "default": spec.default, "enum": list(spec.choices)}
        about |= {"minimum": spec.low, "maximum": spec.high}
        described[spec.name] = {"type": _KINDS[spec.kind], **{k: v for k, v in about.items() if v not in (None, [])}}
    return described


def _body(fields: dict[str, Any]) -> dict[str, Any]:
    """The description of a request's body: a form with files, or JSON with base64."""
    text = "a picture in base64, or a data URL; an address, if the server may fetch"
    texts = {"type": "array", "items": {"type": "string"}}
    given = {
        "images": {**texts, "description": text},
        "paths": {**texts, "description": "paths in the folder of the server, if it has one"},
    }
    files = {"image": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "files"}}
    bodies = {"application/json": given, "multipart/form-data": files}
    schemas = {kind: {"schema": {"type": "object", "properties": own | fields}} for kind, own in bodies.items()}
    return {"required": True, "content": schemas}


def _shown(body: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The kinds of bodies that a route takes, each as a text, for the page."""
    content = (body or {}).get("content", {})
    return [(kind, json.dumps(about["schema"].get("properties", {}), indent=2)) for kind, about in content.items()]
