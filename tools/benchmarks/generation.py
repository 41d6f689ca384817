"""Times the generation of Sort-of-CLEVR: 10,000 images with 20 questions each, on one and on two threads.

    python tools/benchmarks/generation.py [--images 10000] [--rounds 3]

Rounds are interleaved, the median is printed; CPU seconds tell how far a busy machine slowed the wall clock. "On disk"
is the cache file complete, with its checksum. Goal: 10,000 images on disk in less than 30 s on two cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from zoo.data._cache import ensure_records
from zoo.data._generator import Recipe, generate_chunks

RECIPE = Recipe(seed=0, low=1, high=6, image_size=75, object_size=5, questions=10)
THREADS = (1, 2)
GOAL_S = 30


def in_memory(images: int, threads: int) -> None:
    for _ in generate_chunks(RECIPE, "benchmark", images, threads):
        pass


def on_disk(images: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "benchmark.npy"
        ensure_records(path, {}, RECIPE.dtype, images, lambda: generate_chunks(RECIPE, "benchmark", images, threads))


def timed(function: Callable[[int, int], None], images: int, threads: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    function(images, threads)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cases = [(function, threads) for function in (in_memory, on_disk) for threads in THREADS]
    times = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            times[case].append(timed(case[0], options.images, case[1]))
    cores = len(os.sched_getaffinity(0))
    table = Table("where", "threads", "wall s", "CPU s", "images/s", title=f"{options.images} images, {cores} cores")
    for (function, threads), rounds in times.items():
        wall, cpu = (statistics.median(values) for values in zip(*rounds, strict=True))
        row = (function.__name__.replace("_", " "), str(threads), f"{wall:.2f}", f"{cpu:.2f}")
        table.add_row(*row, f"{options.images / wall:,.0f}")
    Console().print(table, f"goal: 10,000 images on disk in less than {GOAL_S} s on two cores")


if __name__ == "__main__":
    main()
