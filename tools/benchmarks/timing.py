"""How benchmarks time: CPU time of one process, candidates interleaved, the median over rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def measured(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of CPU time; the first round warms up and compiles."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}
