"""Pairs per second of every edit distance on graphs of Sort-of-CLEVR and CLEVR size, one thread, CPU time.

    python tools/benchmarks/edit_distance.py

Goals: `authors` at least 10 times the NumPy + SciPy loop over pairs; 500 × 15,000 pairs, as many as CLEVR's validation
set gives, which the second table really computes, in 30 core-seconds by `authors` and 60 by `bipartite`.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from zoo.truth import PackedGraphs, edit_distances, sample_clevr_graphs, sort_of_clevr_graphs
from zoo.truth.reference import authors_distance

REPEATS = 3


def sort_of_clevr_like(rng: np.random.Generator, graphs: int, least: int = 1) -> PackedGraphs:
    colour = np.argsort(rng.random((graphs, 6)), axis=1)
    x, y = rng.integers(5, 70, (2, graphs, 6))
    return sort_of_clevr_graphs(colour, rng.integers(0, 2, (graphs, 6)), x, y, rng.integers(least, 7, graphs))


def seconds(run: Callable[[], object]) -> float:
    """Least CPU time of a few runs."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    rng = np.random.default_rng(0)
    sets = {
        "Sort-of-CLEVR, 1-6": sort_of_clevr_like(rng, 2_000),
        "Sort-of-CLEVR, 6": sort_of_clevr_like(rng, 2_000, least=6),
        "CLEVR, 3-10": sample_clevr_graphs(2_000, seed=0),
    }
    table = Table("graphs", "nodes", "method", "pairs/s", "µs/pair", "against the loop")
    for name, graphs in sets.items():
        for nodes in ("soft", "hard"):
            few = list(graphs[:40])
            loop = seconds(lambda: [authors_distance(a, b, nodes) for a in few for b in few]) / 1_600  # noqa: B023
            table.add_row(name, nodes, "authors, NumPy + SciPy", f"{1 / loop:,.0f}", f"{loop * 1e6:.2f}", "1.0")
            for method in ("authors", "bipartite", "exact"):
                queries = graphs[: 20 if method == "exact" else 100]
                edit_distances(queries[:1], graphs[:1], nodes, method)  # compiles
                cost = seconds(lambda: edit_distances(queries, graphs, nodes, method)) / (len(queries) * len(graphs))  # noqa: B023
                speedup = f"{loop / cost:.0f}" if method == "authors" else ""
                table.add_row("", "", method, f"{1 / cost:,.0f}", f"{cost * 1e6:.2f}", speedup)
    console = Console(width=110)
    console.print(table)
    console.print(full_size())


def full_size() -> Table:
    """CPU time of all pairs of 500 queries and 15,000 gallery graphs, once."""
    table = Table("500 × 15,000 CLEVR graphs", "nodes", "core-seconds", "goal", "pairs/s")
    gallery = sample_clevr_graphs(15_000, seed=1)
    for method, goal in (("authors", 30), ("bipartite", 60)):
        for nodes in ("soft", "hard"):
            start = time.process_time()
            edit_distances(gallery[:500], gallery, nodes, method)
            spent = time.process_time() - start
            table.add_row(method, nodes, f"{spent:.1f}", str(goal), f"{7.5e6 / spent:,.0f}")
    return table


if __name__ == "__main__":
    main()
