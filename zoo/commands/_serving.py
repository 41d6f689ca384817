"""The processes of `zoo serve`: what listens, what is checked before, and how all of it ends."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zoo.registry import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoo.serve.engine import Engine
    from zoo.serve.settings import Settings

_BACKLOG = 512


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Gives a socket that listens; raises UsageError for an address that can't be had."""
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.set_inheritable(True)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise UsageError(f"port must be free at host={host}, got {port}: {error}; port=0 takes any free one") from error
    with listener:
        yield listener


def checked_engine(settings: Settings) -> Engine:
    """Returns the engine after a search with it, so that what doesn't fit is said now and not to every visitor."""
    import torch

    from zoo.commands._ending import usage_errors
    from zoo.serve.engine import Asked, Engine
    from zoo.serve.problems import Refused
    from zoo.types import name_of

    torch.set_num_threads(settings.threads)
    with usage_errors():
        engine = Engine(settings)
    if not len(engine):
        raise UsageError(f"index_path must be an index with images, got {settings.index}, which holds none")
    ranking = engine.search(Asked(1))
    if not ranking.hits:
        raise UsageError(f"where must fit at least one image of the index, got {settings.where}")
    try:
        engine.search(Asked(1, item=ranking.hits[0]["id"]))
    except Refused as error:
        names = ", ".join(map(name_of, engine.rerankers.values())) or "none"
        raise UsageError(f"reranker must fit the index, got {names}: {error.got}") from error
    return engine


def serve_here(
    settings: Settings, engine: Engine, listener: socket.socket, grace: float, tell: Callable[[], None]
) -> None:
    """Answers requests in this process until SIGINT or SIGTERM; what has begun is finished, within `grace` s."""
    import uvicorn

    from zoo.serve.app import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(settings, engine, tell), **_options(grace)))
    with _ended_by_signals():
        server.run(sockets=[listener])


def serve_in_workers(
    settings: Settings, listener: socket.socket, workers: int, grace: float, tell: Callable[[], None]
) -> None:
    """Answers requests in so many processes, as `serve_here` does; one that dies is replaced."""
    import uvicorn

    from zoo.serve.settings import VARIABLE
    from zoo.serve.workers import Workers

    os.environ[VARIABLE] = settings.text()
    config = uvicorn.Config("zoo.serve.app:from_environment", factory=True, workers=workers, **_options(grace))
    try:
        with _ended_by_signals():
            supervisor = Workers(config, sockets=[listener])
            tell()  # it heeds signals from now on
            supervisor.run()
    finally:
        del os.environ[VARIABLE]


def _options(grace: float) -> dict[str, Any]:
    return {
        "log_config": None,  # Hydra's handlers are there
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": max(1, round(grace)),
    }


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Lets SIGINT and SIGTERM end the server, and nothing else: uvicorn raises them again once it is done."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
