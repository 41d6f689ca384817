"""Pairs per second of every edit distance on graphs of Sort-of-CLEVR and CLEVR size, one thread, CPU time.

    python tools/benchmarks/edit_distance.py

Two loops over pairs by NumPy and SciPy are what `authors` is held against: "plain" is the reference of the tests, and
solves the assignment once per relation; "tight" does no work twice. Goals: `authors` at least 10 times the tight loop
on CLEVR's graphs; 500 × 15,000 pairs, as many as CLEVR's validation set gives, which the second table really computes,
in 30 core-seconds by `authors` and 60 by `bipartite`.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment

from zoo.truth import PackedGraphs, SceneGraph, edit_distances, sample_clevr_graphs, sort_of_clevr_graphs
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


class Tight:
    """The authors' distance as one would write it with care: one assignment per pair, edges counted by indexing."""

    def __init__(self, graphs: list[SceneGraph], nodes: str) -> None:
        self.nodes, self.unit = nodes, graphs[0].attributes.shape[1] if nodes == "soft" else 1
        self.attributes = [np.array(graph.attributes) for graph in graphs]
        self.edges = [self._adjacency(graph) for graph in graphs]
        self.padded: dict[tuple[int, int], np.ndarray] = {}

    @staticmethod
    def _adjacency(graph: SceneGraph) -> np.ndarray:
        found = np.zeros((graph.relations, len(graph), len(graph)), bool)
        found[graph.edges[:, 2], graph.edges[:, 0], graph.edges[:, 1]] = True
        return found

    def _square(self, n: int, m: int) -> np.ndarray:
        if (n, m) not in self.padded:
            square = np.zeros((n + m, n + m))
            for block in (square[:n, m:], square[n:, :m]):
                block[:] = np.where(np.eye(len(block), dtype=bool), self.unit, 5 * self.unit)
            self.padded[n, m] = square
        return self.padded[n, m]

    def distance(self, a: int, b: int) -> float:
        """Distance of the graphs at two places."""
        own, theirs = self.attributes[a], self.attributes[b]
        n, m = len(own), len(theirs)
        square, differ = self._square(n, m), own[:, None] != theirs
        square[:n, :m] = differ.sum(axis=2) if self.nodes == "soft" else differ.any(axis=2)
        rows, columns = linear_sum_assignment(square)
        kept = np.flatnonzero(columns[:n] < m)
        image = columns[kept]
        before, after = self.edges[a][:, kept[:, None], kept], self.edges[b][:, image[:, None], image]
        turned = np.count_nonzero(before & ~after & after.transpose(0, 2, 1))
        return len(self.edges[a]) * square[rows, columns].sum() / self.unit + turned


def loops(graphs: PackedGraphs, nodes: str) -> tuple[float, float]:
    """Seconds a pair of the plain and the tight loop, after a check that all three agree."""
    few, places = list(graphs[:40]), range(40)
    tight = Tight(few, nodes)
    expected = edit_distances(few, few, nodes, "authors")
    for found in (
        [[tight.distance(a, b) for b in places] for a in places],
        [[authors_distance(a, b, nodes) for b in few] for a in few],
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    plain = seconds(lambda: [authors_distance(a, b, nodes) for a in few for b in few])
    return plain / 1_600, seconds(lambda: [tight.distance(a, b) for a in places for b in places]) / 1_600


def main() -> None:
    rng = np.random.default_rng(0)
    sets = {
        "Sort-of-CLEVR, 1-6": sort_of_clevr_like(rng, 2_000),
        "Sort-of-CLEVR, 6": sort_of_clevr_like(rng, 2_000, least=6),
        "CLEVR, 3-10": sample_clevr_graphs(2_000, seed=0),
    }
    table = Table("graphs", "nodes", "method", "pairs/s", "µs/pair", "× plain", "× tight")
    for name, graphs in sets.items():
        for nodes in ("soft", "hard"):
            plain, tight = loops(graphs, nodes)
            table.add_row(name, nodes, "authors, plain loop", f"{1 / plain:,.0f}", f"{plain * 1e6:.2f}", "1.0", "")
            factor = f"{plain / tight:.1f}"
            table.add_row("", "", "authors, tight loop", f"{1 / tight:,.0f}", f"{tight * 1e6:.2f}", factor, "1.0")
            for method in ("authors", "bipartite", "exact", "part"):
                queries = graphs[: 20 if method in ("exact", "part") else 100]
                edit_distances(queries[:1], graphs[:1], nodes, method)  # compiles
                cost = seconds(lambda: edit_distances(queries, graphs, nodes, method)) / (len(queries) * len(graphs))  # noqa: B023
                factors = [f"{loop / cost:.1f}" if method == "authors" else "" for loop in (plain, tight)]
                table.add_row("", "", method, f"{1 / cost:,.0f}", f"{cost * 1e6:.2f}", *factors)
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
