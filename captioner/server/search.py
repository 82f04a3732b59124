"""/find: pictures of the server's folder that a sentence describes."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException

from captioner.bulk.find import Index, Match, open_index
from captioner.errors import OptionError
from captioner.pictures.find import find_pictures
from captioner.server.messages import Json, body_of, check_length
from captioner.server.service import Service

_SECONDS = 30.0  # after which a folder is looked at again
_PATIENCE = 5.0  # seconds that a question waits for the index
_MOST = 1000  # pictures in an answer
_FIELDS: dict[str, Any] = {
    "text": {"type": "string", "description": "what the pictures show"},
    "without": {"type": "string", "description": "what they do not show"},
    "n": {"type": "integer", "minimum": 1, "maximum": _MOST, "default": 20, "description": "how many, the best first"},
}
_BODY = {"required": True, "content": {"application/json": {"schema": {"type": "object", "properties": _FIELDS}}}}


class Finder:
    """The index of a service's folder. One thread makes it, at the first question, and looks all questions up in it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._thread = ThreadPoolExecutor(1, initializer=service.model.network.work_alone)
        self._opened: Future[Index] | None = None
        self._looked = 0.0

    async def find(self, text: str, n: int, without: str) -> list[Match]:
        """The best matches. Raises 503 while the folder is encoded for the first time, and what `Index.find` raises."""
        if self._service.folder is None:
            raise OptionError("this server has no folder to find pictures in: start it with --folder DIR")
        if self._opened is None or (self._opened.done() and time.monotonic() - self._looked > _SECONDS):
            self._opened = self._thread.submit(self._open, self._service.folder)
        opened = self._opened
        done, _ = await asyncio.wait([asyncio.wrap_future(opened)], timeout=_PATIENCE)
        if not done:
            busy = "the pictures of the folder are being encoded, which is done once: ask again later"
            raise HTTPException(503, busy, {"Retry-After": "10"})
        if opened.exception() is not None:
            self._opened = None  # the folder may have pictures the next time
        index = opened.result()
        work = asyncio.get_running_loop().run_in_executor(self._thread, partial(index.find, text, n, without=without))
        return await work

    def close(self) -> None:
        """End the thread, after what it has begun."""
        self._thread.shutdown(cancel_futures=True)

    def _open(self, folder: Path) -> Index:
        """The index of what the folder holds now. A link that leads out of the folder counts as not there."""
        root = folder.resolve()
        found = find_pictures([str(folder)], recursive=True)
        inside = [path for path in found if Path(path).resolve().is_relative_to(root)]
        index = open_index(inside, model=self._service.model)
        self._looked = time.monotonic()
        return index


def router(service: Service, finder: Finder) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["captioner"])

    @routes.post("/find", openapi_extra={"requestBody": _BODY}, response_class=Json)
    async def find(request: Request) -> Json:
        """The pictures in the server's folder that a sentence describes best."""
        given = await body_of(request)
        text, without, n = (given.pop(name, default) for name, default in (("text", ""), ("without", ""), ("n", 20)))
        if given:
            raise OptionError(f"no option {min(given)!r} here: only text, without and n")
        for name, value in (("text", text), ("without", without)):
            if not isinstance(value, str):
                raise OptionError(f"{name} must be a text")
            check_length(name, value)
        if type(n) is not int or not 1 <= n <= _MOST:
            raise OptionError(f"n must be a whole number from 1 to {_MOST}, not {n!r}")
        found = await finder.find(text, n, without)
        rows = [{**match.row(), "path": os.path.relpath(match.path, service.folder)} for match in found]
        return Json({"model": service.name, "results": rows})

    return routes
