"""What a request did wrong, said the same way everywhere: argument, rule, value."""

from __future__ import annotations

from typing import Any

_LONGEST = 120  # characters of a value that are said again


class Refused(Exception):
    """A request that isn't served: `status` of HTTP, and which `argument` breaks which `rule`, with what it was.

    `rule` goes on after "must"; `retry` says after how many seconds it is worth asking again, None for never.
    """

    def __init__(self, status: int, argument: str, rule: str, got: Any, retry: int | None = None) -> None:
        self.status, self.rule, self.retry = status, rule, retry
        self.argument = argument.encode(errors="backslashreplace").decode()
        text = str(got).encode(errors="backslashreplace").decode()  # halves of surrogate pairs can't be sent
        self.got = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
        super().__init__(f"{self.argument} must {rule}, got {self.got}")

    def plain(self) -> dict[str, Any]:
        """Returns the body of the answer."""
        parts = {"argument": self.argument, "rule": f"must {self.rule}", "got": self.got}
        return {"error": {**parts, "message": str(self)}}

    def headers(self) -> dict[str, str]:
        """Returns what the answer's header says besides."""
        return {} if self.retry is None else {"Retry-After": str(self.retry)}
