"""Times the indexes against faiss called directly and against a loop per image: one thread, CPU time, interleaved.

    python tools/benchmarks/search/indexes.py [repeats]

Then measures what a million string ids with payloads cost: size, memory and time of opening.
"""

from __future__ import annotations

import os
import sys

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import torch

import zoo
from zoo.search.index import Index, open_index
from zoo.types import Representation

FLAT = ((5_000, 512), (100_000, 512))
QUERIES, K = 70, 10
REGIONS = (5_063, 8, 512)
IDS = 1_000_000

Candidate = Callable[[], object]


def rows(repeats: int = 5) -> list[dict[str, object]]:
    """Measures each candidate; a row holds task, candidate, ms, times zoo's, goal and largest deviation."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    tasks = [*(task for size in FLAT for task in flat_tasks(*size)), *region_tasks()]
    return [row for task, goal, candidates in tasks for row in _rows(task, goal, candidates, repeats)]


def _rows(task: str, goal: str, candidates: dict[str, Candidate], repeats: int) -> list[dict[str, object]]:
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    values = {name: np.asarray(candidate()) for name, candidate in candidates.items()}
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
            "goal": goal if name == last else "",
            "deviation": f"{np.abs(values[name] - values[last]).max():.0e}",
        }
        for name in candidates
    ]


def flat_tasks(count: int, dimension: int) -> list[tuple[str, str, dict[str, Candidate]]]:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(count, dimension, generator=generator), dim=1)
    gallery, queries = Representation(vector=vectors), vectors[:QUERIES] + 0.01
    names, template = [f"photos/{i:07d}.jpg" for i in range(count)], zoo.create("index", "flat", metric="dot")

    def ours(ids: Sequence[str] | Sequence[int]) -> Index:
        index = type(template)(**template.registered["parameters"])  # composing a config is no part of a build
        index.add(ids, gallery)
        return index

    def theirs() -> faiss.Index:
        index = faiss.IndexFlatIP(dimension)
        index.add(vectors.numpy())
        return index

    built, reference, asked = ours(names), theirs(), Representation(vector=queries)
    build = {
        "zoo": lambda: len(ours(range(count))),
        "zoo, string ids": lambda: len(ours(names)),
        "faiss": lambda: theirs().ntotal,
    }
    search = {
        "zoo": lambda: np.stack([ranking.scores.numpy() for ranking in built.search(asked, K)]),
        "faiss": lambda: reference.search(queries.numpy(), K)[0],
    }
    size = f"{count:,} x {dimension}"
    return [
        (f"flat: build {size}", ">= 0.9", build),
        (f"flat: {QUERIES} queries, k = {K}, {size}", ">= 0.9", search),
    ]


def region_tasks() -> list[tuple[str, str, dict[str, Candidate]]]:
    generator = torch.Generator().manual_seed(0)
    regions = torch.nn.functional.normalize(torch.randn(*REGIONS, generator=generator), dim=2)
    items = Representation(regions=regions)
    made = {
        "zoo": zoo.create("index", "regions", metric="dot"),
        "zoo, shortlist of 100": zoo.create("index", "regions", metric="dot", shortlist=100),
    }
    for index in made.values():
        index.add(range(len(regions)), items)
    query, arrays = items.rows(slice(0, 1)), regions.numpy()

    def loop() -> np.ndarray:
        scores = np.array([(arrays[0] @ image.T).max() for image in arrays])
        return scores[np.argsort(-scores, kind="stable")[:K]]

    def first(index: Index) -> Candidate:
        return lambda: index.search(query, K)[0].scores.numpy()

    size = " x ".join(f"{length:,}" for length in REGIONS)
    candidates = {**{name: first(index) for name, index in made.items()}, "loop per image": loop}
    return [(f"regions: a query, k = {K}, {size}", ">= 3.5", candidates)]


def million_ids() -> str:
    """Measures a saved index of short vectors with long names, in which ids and payloads are what costs."""
    index = zoo.create("index", "flat", metric="dot")
    names = [f"photos/album-{i % 1000:03d}/picture-{i:07d}.jpg" for i in range(IDS)]
    payloads = [{"path": name, "label": f"album-{i % 1000:03d}", "width": 1024} for i, name in enumerate(names)]
    index.add(names, Representation(vector=torch.rand(IDS, 4)), payloads)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        index.save(Path(folder))
        saved = time.process_time() - start
        del index, payloads
        size, before = sum(path.stat().st_size for path in Path(folder).iterdir()), resident()
        start = time.process_time()
        opened = open_index(Path(folder))
        took, memory = time.process_time() - start, resident() - before
        moments = [
            f"{size / 1e6:.0f} MB on disk, saved in {saved:.2f} s, opened in {took:.2f} s, {memory / 1e6:.0f} MB"
        ]
        for what, call in (
            ("first `in`", lambda: names[5] in opened),
            (
                "first filter",
                lambda: opened.search(Representation(vector=torch.ones(1, 4)), 10, {"label": "album-003"}),
            ),
            (
                "second filter",
                lambda: opened.search(Representation(vector=torch.ones(1, 4)), 10, {"label": "album-004"}),
            ),
        ):
            start = time.process_time()
            call()
            moments.append(f"{what} {time.process_time() - start:.2f} s")
    return f"{IDS:,} string ids with payloads: " + ", ".join(moments)


def resident() -> int:
    """Returns this process' memory in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"median CPU time of {repeats} runs, one thread, faiss {faiss.__version__}, torch {torch.__version__}")
    print("| task | candidate | ms | times zoo | goal | largest deviation |")
    print("|---|---|--:|--:|--:|--:|")
    for row in rows(repeats):
        print(f"| {' | '.join(map(str, row.values()))} |")
    print(f"\n{million_ids()}")


if __name__ == "__main__":
    main()
