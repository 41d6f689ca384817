"""Counters of a server process as text that Prometheus reads (exposition format 0.0.4)."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # s


class Metrics:
    """Counts requests by route, method and status, and how long they took; of one process, which `worker` names."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._slower: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
        self._seconds: Counter[str] = Counter()
        self._lock = threading.Lock()

    def note(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts a request."""
        with self._lock:
            self._requests[route, method, status] += 1
            self._seconds[route] += seconds
            place = next((place for place, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
            self._slower[route][place] += 1

    def text(self, gauges: Mapping[str, tuple[str, Iterable[tuple[Mapping[str, str], float]]]]) -> str:
        """Returns all of it, with `gauges`: name → help, and values with their labels."""
        lines = _head("zoo_requests_total", "counter", "Requests, by route, method and status")
        with self._lock:
            for (route, method, status), count in sorted(self._requests.items()):
                labels = {"route": route, "method": method, "status": str(status)}
                lines.append(self._line("zoo_requests_total", labels, count))
            lines += _head("zoo_request_seconds", "histogram", "Seconds from request to the end of its answer")
            for route, counts in sorted(self._slower.items()):
                lines += self._histogram(route, counts)
        for name, (meaning, values) in gauges.items():
            lines += _head(name, "counter" if name.endswith("_total") else "gauge", meaning)
            lines += [self._line(name, labels, value) for labels, value in values]
        return "\n".join(lines) + "\n"

    def _histogram(self, route: str, counts: list[int]) -> list[str]:
        lines, total, name = [], 0, "zoo_request_seconds"
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
            total += count
            lines.append(self._line(f"{name}_bucket", {"route": route, "le": bound}, total))
        lines.append(self._line(f"{name}_sum", {"route": route}, self._seconds[route]))
        return [*lines, self._line(f"{name}_count", {"route": route}, total)]

    def _line(self, name: str, labels: Mapping[str, str], value: float) -> str:
        inside = ",".join(f'{key}="{text}"' for key, text in {**labels, "worker": self.worker}.items())
        return f"{name}{{{inside}}} {value:g}" if isinstance(value, float) else f"{name}{{{inside}}} {value}"


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
