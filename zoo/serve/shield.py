"""What stands before every request: bounds on what is sent, headers that keep the page to this host, counting."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from zoo.serve.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from zoo.serve.metrics import Metrics

    Message = dict[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

# Nothing but this host can be asked by the page; blob: and data: are the visitor's own photo.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
UPLOADS = "/api/photos"
_ENVELOPE = 16_384  # bytes that a form adds to its file
_BODY = 1_000_000  # bytes of a request without a file


class Shield:
    """An ASGI application around another one; `hosts` are those that a request may name, empty for any."""

    def __init__(self, app: Any, metrics: Metrics, upload: int, hosts: Sequence[str]) -> None:
        self.app, self.metrics, self.upload, self.hosts = app, metrics, upload, frozenset(hosts)
        self._headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serves a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, answer = time.perf_counter(), _Answer(send, self._headers)
        bound = self.upload + _ENVELOPE if scope["path"] == UPLOADS else _BODY
        given = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check(given, bound)
            await self.app(scope, _bounded(receive, bound, answer), answer)
        except Refused as refused:
            await answer.refuse(refused)
        finally:
            if answer.too_large is not None and answer.status is None:
                await answer.refuse(answer.too_large)
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.note(route, scope["method"], answer.status or 500, time.perf_counter() - start)

    def _check(self, given: dict[bytes, str], bound: int) -> None:
        host = given.get(b"host", "").rpartition("@")[2]
        name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if self.hosts and name.lower() not in self.hosts:
            # Else a page of another site could reach a server of this machine by a name of its own.
            raise Refused(421, "Host", f"be one of {', '.join(sorted(self.hosts))}", host)
        length = given.get(b"content-length", "0")
        if length.isdecimal() and int(length) > bound:
            raise _too_large(bound, f"{int(length)} bytes")


class _Answer:
    """Sends an answer with our headers; takes note of its status."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self.status: int | None = None
        self.too_large: Refused | None = None
        self._send, self._headers = send, headers

    async def __call__(self, message: Message) -> None:
        if self.too_large is not None and self.status is None:
            return  # whatever the application makes of a body that was cut off, the reason is another
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], *self._headers]}
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        """Answers with a problem, unless an answer has begun."""
        if self.status is not None:
            return
        self.status, body = refused.status, json.dumps(refused.plain()).encode()
        own = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers()}
        headers = [(name.lower().encode(), value.encode()) for name, value in own.items()]
        start = {"type": "http.response.start", "status": self.status, "headers": [*headers, *self._headers]}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _bounded(receive: Receive, bound: int, answer: _Answer) -> Receive:
    """Returns `receive` for at most so many bytes: a request needn't say how long it is."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > bound:
            answer.too_large = _too_large(bound, f"more than {bound} bytes")
            raise answer.too_large
        return message

    return bounded


def _too_large(bound: int, got: str) -> Refused:
    return Refused(413, "body", f"have at most {bound} bytes", got)
