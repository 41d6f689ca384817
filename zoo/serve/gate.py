"""How many requests are worked on at once, and how many may wait for that."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from zoo.serve.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

_AGAIN = 1  # s after which it is worth asking again


class Gate:
    """Runs functions in `running` threads; `waiting` more calls may wait, what comes then is refused (503)."""

    def __init__(self, name: str, running: int, waiting: int) -> None:
        self.name, self.running, self.waiting = name, running, waiting
        self.inside = self.refused = 0
        self._threads = ThreadPoolExecutor(running, thread_name_prefix=name)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Returns what `function` returns; raises Refused where too many wait already."""
        most = self.running + self.waiting
        if self.inside >= most:
            self.refused += 1
            raise Refused(503, "request", f"be one of at most {most} at a time", f"one more ({self.name})", _AGAIN)
        self.inside += 1
        try:
            # A call that nobody waits for any more is taken from the queue; one that has begun goes on to its end.
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        finally:
            self.inside -= 1

    def close(self) -> None:
        """Waits for what has begun, and drops what waits."""
        self._threads.shutdown(wait=True, cancel_futures=True)
