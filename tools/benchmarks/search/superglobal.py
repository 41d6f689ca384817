"""Times SuperGlobal re-ranking against a loop over neighbours: one thread, CPU time, interleaved in one process.

python tools/benchmarks/search/superglobal.py [repeats]

A query and its shortlist of 400 descriptors of 4,096 numbers. "loop" refines every item by adding up its neighbours one
by one, as the equations are written; "stacked" gathers them all into one tensor first, as the authors' code does.
Both find the neighbours with one matrix product, as the zoo does.
"""

from __future__ import annotations

import os
import sys

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.search.refinement import superglobal
from zoo.search.rerankers.superglobal import PRESETS

HITS, DIMENSION = 400, 4096
GOAL = 1.7


def loop(query: Tensor, shortlist: Tensor, p: int, beta: float, convention: str) -> Tensor:
    products = shortlist @ shortlist.T
    if convention == "paper":
        products.fill_diagonal_(-torch.inf)
    count = p if convention == "paper" else p + 1
    similarities, places = products.topk(count, dim=1)
    refined = []
    for item in range(len(shortlist)):
        total, weights = shortlist[item].clone(), 1.0
        for weight, place in zip(similarities[item][-p:].tolist(), places[item][-p:].tolist(), strict=True):
            total += weight * beta * shortlist[place]
            weights += weight * beta
        refined.append(total / weights)
    return finished(query, torch.stack(refined), p, convention)


def stacked(query: Tensor, shortlist: Tensor, p: int, beta: float, convention: str) -> Tensor:
    products = shortlist @ shortlist.T
    if convention == "paper":
        products.fill_diagonal_(torch.inf)
    similarities, places = products.topk(p + 1, dim=1)
    weights = torch.cat([torch.ones(len(shortlist), 1), similarities[:, 1:] * beta], dim=1)
    refined = (shortlist[places] * weights[..., None]).sum(dim=1) / weights.sum(dim=1, keepdim=True)
    return finished(query, refined, p, convention)


def finished(query: Tensor, refined: Tensor, p: int, convention: str) -> Tensor:
    if convention == "paper":
        unit, expanded = F.normalize(refined, dim=1), refined[:p].amax(dim=0)
        return (unit @ F.normalize(query, dim=0) + unit @ F.normalize(expanded, dim=0)) / 2
    first = refined @ query
    expanded = refined[first.topk(p + 1).indices].amax(dim=0)
    return (first + refined @ expanded) / 2


def measured(p: int, beta: float, convention: str, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the median ms of each candidate, and the largest deviation of its scores from the loop's."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.randn(DIMENSION, generator=generator)
    shortlist = F.normalize(scene + torch.randn(HITS, DIMENSION, generator=generator), dim=1)
    query = F.normalize(scene + torch.randn(DIMENSION, generator=generator), dim=0)
    candidates: dict[str, Callable[[], Tensor]] = {
        "zoo": lambda: superglobal(query[None], shortlist[None], p, beta, convention=convention)[0],
        "loop": lambda: loop(query, shortlist, p, beta, convention),
        "stacked": lambda: stacked(query, shortlist, p, beta, convention),
    }
    values = {name: candidate() for name, candidate in candidates.items()}  # warms up
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, candidate in candidates.items():
            start = time.process_time()
            candidate()
            seconds[name].append(time.process_time() - start)
    deviation = {name: (values[name] - values["loop"]).abs().max().item() for name in candidates}
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}, deviation


def rows(repeats: int = 21) -> list[dict[str, object]]:
    """Measures each candidate; a row holds task, candidate, ms a query, times zoo's, goal and largest deviation."""
    torch.set_num_threads(1)
    settings = [(*PRESETS[convention].values(), convention) for convention in PRESETS]
    table = []
    for p, beta, convention in (*settings, (9, 0.15, "paper")):
        taken, deviation = measured(p, beta, convention, repeats)
        table += [
            {
                "task": f"SuperGlobal {HITS} x {DIMENSION}, {convention}, p = {p}",
                "candidate": name,
                "ms a query": round(ms, 1),
                "times zoo": round(ms / taken["zoo"], 2),
                "goal": f">= {GOAL}" if name == "loop" else "",
                "deviation": f"{deviation[name]:.0e}",
            }
            for name, ms in taken.items()
        ]
    return table


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    print(f"median CPU time of {repeats} runs, one thread, torch {torch.__version__}")
    table = rows(repeats)
    print("| " + " | ".join(table[0]) + " |\n|---|---|--:|--:|--:|--:|")
    for row in table:
        print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    main()
