"""Times correlation volumes from product-quantised local maps against decoding: one thread, CPU time, interleaved.

python tools/benchmarks/search/local_maps.py [repeats]

A query of 7 x 7 locations and 64 gallery images of 15 x 15, of 2,048 numbers each. "decoded" gathers the centroids,
L2-normalises every location and multiplies the matrices; "zoo" includes the query's table. The shortlist is 5,000
images, whose codes are drawn anew for every block, since 5,000 decoded maps don't fit into memory.
"""

from __future__ import annotations

import os
import sys

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import statistics
import time
from collections.abc import Callable

import faiss
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.search.local_maps import correlations, encoded
from zoo.search.quantizer import ProductQuantizer
from zoo.types import Representation

DIMENSION, CENTROIDS, QUERY, GALLERY, PAIRS = 2048, 256, 7, 15, 64
PARTS = (32, 64, 128)
SHORTLIST, CODED = 5_000, 8
GOAL = 12

Candidate = Callable[[], Tensor]


def made_up(parts: int) -> tuple[ProductQuantizer, Representation, Tensor]:
    """Returns a quantiser of random features, 64 images' codes and a query (D, 7, 7); k-means would change no time."""
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(CENTROIDS, DIMENSION, generator=generator).relu(), dim=1)
    quantizer = ProductQuantizer(features.unflatten(1, (parts, -1)).transpose(0, 1))
    codes = torch.randint(0, CENTROIDS, (PAIRS, GALLERY, GALLERY, parts), generator=generator, dtype=torch.uint8)
    query = F.normalize(torch.randn(DIMENSION, QUERY, QUERY, generator=generator).relu(), dim=0)
    return quantizer, Representation(local_codes=codes, quantizer=quantizer), query


def correlation_candidates(parts: int) -> dict[str, Candidate]:
    quantizer, hits, query = made_up(parts)
    flat = torch.from_numpy(quantizer.centroids).flatten(0, 1)
    locations = query.flatten(1).mT.contiguous()

    def decoded() -> Tensor:
        features = F.embedding(quantizer.table_rows(hits.local_codes.flatten(1, 2)), flat).flatten(2)
        return locations @ F.normalize(features, dim=2).mT

    return {
        "zoo": lambda: next(correlations(query, hits, block=PAIRS))[1].flatten(2),
        "decoded": decoded,
    }


def coding_candidates(parts: int) -> dict[str, Candidate]:
    quantizer, _, _ = made_up(parts)
    maps = torch.randn(CODED, DIMENSION, GALLERY, GALLERY, generator=torch.Generator().manual_seed(1))
    maps = F.normalize(maps.relu(), dim=1)
    reference = faiss.ProductQuantizer(DIMENSION, parts, 8)
    faiss.copy_array_to_vector(quantizer.centroids.ravel(), reference.centroids)

    def theirs() -> Tensor:
        rows = maps.permute(0, 2, 3, 1).flatten(0, 2).contiguous()
        return torch.from_numpy(reference.compute_codes(rows.numpy())).float()

    return {"zoo": lambda: encoded(maps, quantizer).flatten(0, 2).float(), "faiss": theirs}


def shortlist_seconds(parts: int = 128) -> float:
    """Returns the CPU time of the correlations of one query with a shortlist of 5,000 images."""
    quantizer, _, query = made_up(parts)
    codes = torch.randint(0, CENTROIDS, (SHORTLIST, GALLERY, GALLERY, parts), dtype=torch.uint8)
    start = time.process_time()
    for _, volume in correlations(query, Representation(local_codes=codes, quantizer=quantizer)):
        del volume
    return time.process_time() - start


def rows(repeats: int = 7) -> list[dict[str, object]]:
    """Measures each candidate; a row holds task, candidate, ms, times zoo's, largest deviation and goal."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    table = []
    for parts in PARTS:
        task = f"correlation: {PAIRS} pairs, M = {parts}, C = {CENTROIDS}, D = {DIMENSION}"
        goal = f">= {GOAL}" if parts == max(PARTS) else ""
        table += _rows(task, goal, correlation_candidates(parts), repeats)
    for parts in PARTS:
        task = f"coding: {CODED} maps {GALLERY} x {GALLERY}, M = {parts}"
        table += _rows(task, "", coding_candidates(parts), repeats)
    taken = statistics.median(shortlist_seconds() for _ in range(3))
    last = {
        "task": f"correlation: a shortlist of {SHORTLIST:,}, M = 128",
        "candidate": "zoo",
        "ms": round(taken * 1e3),
        "times zoo": "",
        "deviation": "",
        "goal": "<= 5,000 with the network",
    }
    return [*table, last]


def _rows(task: str, goal: str, candidates: dict[str, Candidate], repeats: int) -> list[dict[str, object]]:
    values = {name: candidate() for name, candidate in candidates.items()}  # warms up
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, candidate in candidates.items():
            start = time.process_time()
            candidate()
            seconds[name].append(time.process_time() - start)
    taken = {name: statistics.median(times) for name, times in seconds.items()}
    last = next(reversed(values))  # what zoo is measured against
    return [
        {
            "task": task,
            "candidate": name,
            "ms": round(taken[name] * 1e3, 2),
            "times zoo": round(taken[name] / taken["zoo"], 2),
            "deviation": f"{(values[name] - values[last]).abs().max():.0e}",
            "goal": goal if name == last else "",
        }
        for name in candidates
    ]


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"median CPU time of {repeats} runs, one thread, faiss {faiss.__version__}, torch {torch.__version__}")
    table = rows(repeats)
    print("| " + " | ".join(table[0]) + " |\n|---|---|--:|--:|--:|---|")
    for row in table:
        print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    main()
