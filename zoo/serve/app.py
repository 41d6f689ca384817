"""The HTTP API and the page, as an ASGI application."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from zoo.serve.engine import Engine
from zoo.serve.problems import Refused
from zoo.serve.routes import ERRORS, add_routes
from zoo.serve.service import Service
from zoo.serve.settings import VARIABLE, Settings
from zoo.serve.shield import Shield

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_DESCRIPTION = """\
Searches an index of images by drawings of what is where, by photos, by items of the index, and by words.

Whatever is wrong with a request is answered by `{"error": {"argument", "rule", "got", "message"}}`; 503 says that too
many requests wait, and `Retry-After` when to ask again.
"""


def create_app(settings: Settings, engine: Engine | None = None, tell: Callable[[], None] | None = None) -> Any:
    """Returns the application; opens the index that `settings` name unless `engine` has done so.

    `tell` is called once requests are answered, and signals heeded.
    """
    service = Service(settings, engine or Engine(settings))

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        watch = asyncio.create_task(_end_with(settings.parent)) if settings.parent else None
        if tell is not None:
            tell()
        try:
            yield
        finally:
            if watch is not None:
                watch.cancel()
            service.close()

    # The pages that FastAPI has for /docs load their scripts from another host.
    app = FastAPI(
        title="spatial-zoo", description=_DESCRIPTION, docs_url=None, redoc_url=None, lifespan=life, responses=ERRORS
    )
    _answer_problems(app)
    add_routes(app, service)
    shielded = Shield(app, service.metrics, int(settings.upload_mb * 1e6), settings.hosts)
    shielded.service = service
    return shielded


def from_environment() -> Any:
    """Returns the application of a worker process, which finds its settings in the environment."""
    import torch

    settings = Settings.of(os.environ[VARIABLE])
    torch.set_num_threads(settings.threads)
    return create_app(settings)


async def _end_with(parent: int) -> None:
    """Ends this worker in good order once its parent is gone, however that one ended."""
    with suppress(asyncio.CancelledError):
        while os.getppid() == parent:
            await asyncio.sleep(1)
        signal.raise_signal(signal.SIGTERM)


def _answer_problems(app: FastAPI) -> None:
    """Gives every error the one form."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return JSONResponse(error.plain(), error.status, error.headers())

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            problem = Refused(422, "body", "be JSON", f"{first['ctx']['error']} at character {first['loc'][-1]}")
            return JSONResponse(problem.plain(), problem.status)
        argument = ".".join(str(part) for part in first["loc"] if part not in ("body", "path", "query")) or "body"
        text = first["msg"][:1].lower() + first["msg"][1:]
        problem = Refused(422, argument, f"be valid ({text})", repr(first.get("input")))
        return JSONResponse(problem.plain(), problem.status)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        problem = Refused(error.status_code, "request", "be one that /openapi.json describes", error.detail)
        return JSONResponse(problem.plain(), problem.status, error.headers)
