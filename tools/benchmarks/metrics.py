"""Times the metrics against torchmetrics and measures their memory: one thread, CPU time, interleaved in one process.

python tools/benchmarks/metrics.py [repeats]
"""

from __future__ import annotations

import os
import sys

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, ndcg_score
from torch import Tensor
from torchmetrics import Metric, MetricCollection, SpearmanCorrCoef, retrieval

from zoo.metrics.functional import spearman
from zoo.metrics.map import RetrievalMAP
from zoo.metrics.ndcg import RetrievalNDCG
from zoo.metrics.precision import RetrievalPrecision
from zoo.metrics.recall import RetrievalRecall
from zoo.metrics.spearman import RankSpearman

QUERIES, ITEMS = 500, 5_000
SPEARMAN = (50, 15_000)
MEMORY = (1_000, 10_000, 100_000)

Candidate = Callable[[], Tensor]


def distinct_scores(queries: int, items: int) -> Tensor:
    """Positive and without ties: torchmetrics drops scores of 0 and below, and shares gains among equal scores."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(queries, items, generator=generator).argsort(dim=1).float() + 1


def run_ours(parts: list[tuple[Metric, Tensor]], scores: Tensor) -> Tensor:
    for metric, target in parts:
        metric.update(scores, target, query=torch.arange(len(scores)))
    return torch.stack([metric.compute() for metric, _ in parts])


def run_theirs(parts: list[tuple[Metric, Tensor]], scores: Tensor) -> Tensor:
    indexes = torch.arange(len(scores))[:, None].expand_as(scores)
    return torch.stack([metric(scores, target, indexes=indexes) for metric, target in parts])


def average_precisions(share: float) -> tuple[dict[str, Candidate], Tensor]:
    scores = distinct_scores(QUERIES, ITEMS)
    relevant = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)) < share
    candidates = {
        "zoo": lambda: run_ours([(RetrievalMAP(k=None, convention="finite", per_query=True), relevant)], scores),
        "torchmetrics": lambda: run_theirs([(retrieval.RetrievalMAP(), relevant)], scores),
    }
    pairs = zip(relevant.numpy(), scores.numpy(), strict=True)
    return candidates, torch.tensor([np.mean([average_precision_score(hits, row) for hits, row in pairs])])


def gains_and_recalls() -> tuple[dict[str, Candidate], Tensor]:
    scores = distinct_scores(QUERIES, ITEMS)
    generator = torch.Generator().manual_seed(1)
    gains = torch.randint(1, 5, scores.shape, generator=generator) * (
        torch.rand(scores.shape, generator=generator) < 0.01
    )
    relevant = gains > 0
    candidates = {
        "zoo": lambda: run_ours(
            [
                (RetrievalNDCG(k=10, gain="linear", per_query=True), gains),
                (RetrievalRecall(k=10, any_hit=False, per_query=True), relevant),
            ],
            scores,
        ),
        "torchmetrics": lambda: run_theirs(
            [(retrieval.RetrievalNormalizedDCG(top_k=10), gains), (retrieval.RetrievalRecall(top_k=10), relevant)],
            scores,
        ),
    }
    top = scores.argsort(dim=1, descending=True)[:, :10]
    recall = (relevant.gather(1, top).sum(dim=1) / relevant.sum(dim=1).double()).mean().item()
    return candidates, torch.tensor([ndcg_score(gains.numpy(), scores.numpy(), k=10), recall], dtype=torch.float64)


def correlations(dtype: torch.dtype) -> tuple[dict[str, Candidate], Tensor]:
    """Continuous distances that follow a ground truth in multiples of 0.25, some 60 values."""
    rng = np.random.default_rng(0)
    truth = rng.binomial(60, 0.5, SPEARMAN) / 4
    a = torch.tensor(truth + rng.normal(0, 3, truth.shape), dtype=dtype)
    b = torch.tensor(truth, dtype=dtype)

    def scipy_loop() -> Tensor:
        return torch.tensor([spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)])

    candidates = {
        "zoo": lambda: spearman(a, b),
        "torchmetrics": lambda: torch.stack([SpearmanCorrCoef()(x, y) for x, y in zip(a, b, strict=True)]),
        "scipy": scipy_loop,
    }
    return candidates, scipy_loop()


def print_times(task: str, goal: int, candidates: dict[str, Candidate], reference: Tensor, repeats: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    values = {"zoo": candidates["zoo"]()}  # compiles
    for _ in range(repeats):
        for name, candidate in candidates.items():
            start = time.process_time()
            values[name] = candidate()
            seconds[name].append(time.process_time() - start)
    taken = {name: statistics.median(times) for name, times in seconds.items()}
    for name, value in values.items():
        deviation = (value.double() - reference.double()).abs().max().item()
        times, wanted = taken[name] / taken["zoo"], f">= {goal}" if name == "torchmetrics" else ""
        print(f"| {task} | {name} | {taken[name] * 1e3:.1f} | {times:.1f} | {wanted} | {deviation:.1e} |")


def memory(field: str) -> int:
    """Reads a figure of this process in bytes: VmRSS, or VmHWM, its maximum since the last reset."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


def extra_memory(items: int) -> tuple[int, int]:
    """Returns what one update of all metrics needs at its peak beyond its input, and the size of the states."""
    scores = torch.rand(QUERIES, items)
    relevant, ignore = scores > 0.99, scores < 0.001
    made = [
        RetrievalMAP(k=None, convention="finite", per_query=True),
        RetrievalPrecision(k=10, capped=True, per_query=True),
        RetrievalRecall(k=10, any_hit=True, per_query=True),
        RetrievalNDCG(k=None, gain="linear", per_query=True),
        RankSpearman(per_query=True),
    ]
    arguments = {"scores": scores, "relevant": relevant, "gains": scores, "a": scores, "b": scores, "ignore": ignore}
    collection = MetricCollection({metric.label: metric for metric in made})
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would hide what is needed now
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets VmHWM
    before = memory("VmRSS")
    collection.update(**arguments, query=torch.arange(QUERIES))
    extra = memory("VmHWM") - before
    states = [getattr(metric, name) for metric in made for name in metric._defaults]
    tensors = [part for state in states for part in (state if isinstance(state, list) else [state])]
    return extra, sum(tensor.nbytes for tensor in tensors)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    print(f"median CPU time of {repeats} runs, one thread, torch {torch.__version__}, numpy {np.__version__}")
    print("| task | candidate | ms | times zoo | goal | largest deviation from scikit-learn or SciPy |")
    print("|---|---|--:|--:|--:|--:|")
    size = f"{QUERIES} x {ITEMS}"
    for share in (0.01, 0.03, 0.1):
        print_times(f"mAP {size}, {share:.0%} relevant", 15, *average_precisions(share), repeats)
    print_times(f"nDCG@10 + Recall@10 {size}", 60, *gains_and_recalls(), repeats)
    for dtype in (torch.float32, torch.float64):
        task = f"Spearman {SPEARMAN[0]} x {SPEARMAN[1]}, {str(dtype).removeprefix('torch.')}"
        print_times(task, 10, *correlations(dtype), repeats)
    print(f"\none update of mAP, mP@10, recall@10, nDCG and Spearman, {QUERIES} queries, float32 scores with junk")
    print("| items | input MB | peak extra MB | state bytes |")
    print("|--:|--:|--:|--:|")
    for items in (MEMORY[0], *MEMORY):  # the first row warms up
        extra, state = extra_memory(items)
        print(f"| {items} | {QUERIES * items * 6 / 1e6:.0f} | {extra / 1e6:.1f} | {state} |")


if __name__ == "__main__":
    main()
