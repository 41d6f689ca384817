"""Times `spearman` against loops over torchmetrics and SciPy: one thread, CPU time, interleaved in one process.

python tools/benchmarks/spearman.py [repeats]
"""

from __future__ import annotations

import os
import sys

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torchmetrics import SpearmanCorrCoef

from zoo.metrics.functional import spearman

SIZES = ((50, 15_000), (500, 10_000))
DTYPES = (torch.float32, torch.float64)


def loop_torchmetrics(a: Tensor, b: Tensor) -> Tensor:
    metric = SpearmanCorrCoef()
    values = []
    for x, y in zip(a, b, strict=True):
        values.append(metric(x, y))
        metric.reset()
    return torch.stack(values)


def loop_scipy(a: Tensor, b: Tensor) -> Tensor:
    return torch.tensor([spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)])


CANDIDATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "zoo": spearman,
    "torchmetrics": loop_torchmetrics,
    "scipy": loop_scipy,
}


def make_rows(queries: int, items: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Continuous distances that follow a ground truth in multiples of 0.25, some 60 values."""
    rng = np.random.default_rng(0)
    truth = rng.binomial(60, 0.5, (queries, items)) / 4
    distances = truth + rng.normal(0, 3, truth.shape)
    return torch.tensor(distances, dtype=dtype), torch.tensor(truth, dtype=dtype)


def measure(a: Tensor, b: Tensor, repeats: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    seconds: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    values = {"zoo": spearman(a, b)}  # warm-up
    for _ in range(repeats):
        for name, function in CANDIDATES.items():
            start = time.process_time()
            values[name] = function(a, b)
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}, values


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    print(f"median CPU time of {repeats} runs, one thread, torch {torch.__version__}, numpy {np.__version__}")
    print("| queries x items | dtype | candidate | ms | times zoo | max abs difference to scipy |")
    print("|---|---|---|--:|--:|--:|")
    for queries, items in SIZES:
        for dtype in DTYPES:
            seconds, values = measure(*make_rows(queries, items, dtype), repeats)
            for name, taken in seconds.items():
                difference = (values[name].double() - values["scipy"]).abs().max().item()
                print(
                    f"| {queries} x {items} | {str(dtype).removeprefix('torch.')} | {name} | {taken * 1e3:.1f} "
                    f"| {taken / seconds['zoo']:.1f} | {difference:.1e} |"
                )


if __name__ == "__main__":
    main()
