"""The application: all routes behind the gate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from captioner import __version__
from captioner.errors import CaptionerError
from captioner.server import ollama, openai, plain, search
from captioner.server.gate import Gate, error
from captioner.server.service import Service


def application(service: Service, token: str = "", root_path: str = "", hosts: Collection[str] = ()) -> FastAPI:
    """The application that answers for a service, which it closes at its end.

    With a `token`, only those who know it are answered. Without, browsers must call it by an address, by a name of the
    local network, or by one of `hosts`. `root_path` is the prefix of a proxy.
    """

    finder = search.Finder(service)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        finder.close()
        service.close()

    off: dict[str, Any] = {"docs_url": None, "redoc_url": None}  # pages that load scripts of other servers
    app = FastAPI(title="captioner", version=__version__, lifespan=life, **off)
    for dialect in (plain, ollama, openai):
        app.include_router(dialect.router(service))
    app.include_router(search.router(service, finder))
    plain.add_page(app)
    app.add_middleware(Gate, service=service, token=token, root_path=root_path, hosts=hosts)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, problem: HTTPException) -> Response:
        return error(request.scope, problem.status_code, str(problem.detail), problem.headers)

    @app.exception_handler(CaptionerError)
    async def wrong(request: Request, problem: CaptionerError) -> Response:
        return error(request.scope, 400, str(problem))

    return app
