"""Times second-order pooling against SciPy's matrix logarithm region by region: one thread, CPU time, interleaved.

    python tools/benchmarks/search/logm.py [repeats]

Two tasks on the same images: the logarithm alone, of matrices that are given, and the whole pooling of regions, for
which the loop averages the outer products with NumPy. Regions are the hulls of three clusters of random points and of
their unions, and the whole map.
"""

from __future__ import annotations

import os
import sys

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy
import torch
from scipy.linalg import eigh, logm
from torch import Tensor

from zoo.ops.hulls import covered_cells, power_set_hulls
from zoo.ops.second_order import matrix_logarithm, second_order_pool

IMAGES, CLUSTERS, CHANNELS, HEIGHT, WIDTH = 4, 3, 128, 24, 32
EPS = 0.1
GOAL, TOLERANCE = 6.0, 1e-8


def example() -> tuple[Tensor, Tensor, Tensor]:
    generator = np.random.default_rng(0)
    masks = np.ones((IMAGES, 2**CLUSTERS, HEIGHT, WIDTH), bool)
    for image in masks:
        centres = generator.uniform((0.2 * WIDTH, 0.2 * HEIGHT), (0.8 * WIDTH, 0.8 * HEIGHT), (CLUSTERS, 2))
        points = np.concatenate([generator.normal(centre, HEIGHT / 10, (100, 2)) for centre in centres])
        hulls = power_set_hulls(points, np.repeat(np.arange(CLUSTERS), 100), CLUSTERS)
        image[1:] = [covered_cells(hull, (HEIGHT, WIDTH), (HEIGHT, WIDTH)) for hull in hulls]
    x = generator.normal(size=(IMAGES, CHANNELS, HEIGHT, WIDTH))
    weights = generator.uniform(size=(IMAGES, HEIGHT, WIDTH))
    return torch.from_numpy(x), torch.from_numpy(masks), torch.from_numpy(weights)


def average(x: np.ndarray, mask: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the matrix of Eq. 5 of one region, with its ridge."""
    cells, share = x[:, mask], weights[mask] / weights[mask].sum()
    found = (cells * share) @ cells.T
    return found + EPS * np.trace(found) / CHANNELS * np.eye(CHANNELS)


def eigh_logm(matrix: np.ndarray) -> np.ndarray:
    values, vectors = eigh(matrix)
    return vectors * np.log(values) @ vectors.T


def tasks() -> dict[str, dict[str, Callable[[], np.ndarray]]]:
    """Returns for each task its candidates, zoo's first, then the reference."""
    inputs = example()
    x, masks, weights = (part.numpy() for part in inputs)
    regions = [(x[image], mask, weights[image]) for image in range(IMAGES) for mask in masks[image]]
    matrices, upper = [average(*region) for region in regions], np.triu_indices(CHANNELS)
    stacked, nothing = torch.from_numpy(np.stack(matrices)), torch.zeros(len(matrices)).double()
    return {
        "logarithm": {
            "zoo": lambda: matrix_logarithm(stacked, nothing).numpy(),
            "scipy.linalg.logm": lambda: np.stack([logm(matrix) for matrix in matrices]),
            "scipy.linalg.eigh": lambda: np.stack([eigh_logm(matrix) for matrix in matrices]),
        },
        "pooling": {
            "zoo": lambda: second_order_pool(*inputs, EPS).flatten(0, 1).numpy(),
            "NumPy + logm": lambda: np.stack([logm(average(*region))[upper] for region in regions]),
            "NumPy + eigh": lambda: np.stack([eigh_logm(average(*region))[upper] for region in regions]),
        },
    }


def rows(repeats: int = 5) -> list[dict[str, object]]:
    """Measures each candidate; a row holds task, candidate, ms a region, times zoo's, goal and largest deviation."""
    torch.set_num_threads(1)
    return [row for task, candidates in tasks().items() for row in _rows(task, candidates, repeats)]


def _rows(task: str, candidates: dict[str, Callable[[], np.ndarray]], repeats: int) -> list[dict[str, object]]:
    ours, reference, _ = candidates
    values = {name: candidate() for name, candidate in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, candidate in candidates.items():
            start = time.process_time()
            candidate()
            seconds[name].append(time.process_time() - start)
    taken = {name: statistics.median(times) / (IMAGES * 2**CLUSTERS) for name, times in seconds.items()}
    return [
        {
            "task": task,
            "candidate": name,
            "ms a region": taken[name] * 1e3,
            "times zoo": taken[name] / taken[ours],
            "goal": f">= {GOAL:.0f}" if name == reference else "",
            "deviation": float(np.abs(values[name] - values[reference]).max()),
        }
        for name in candidates
    ]


def main() -> None:
    measured = rows(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    print(f"{IMAGES} images of {2**CLUSTERS} regions, {CHANNELS} channels, map {HEIGHT}x{WIDTH}, float64, one thread")
    print(f"torch {torch.__version__}, scipy {scipy.__version__}\n")
    print("| task | candidate | ms a region | times zoo | goal | largest deviation |\n|---|---|--:|--:|--:|--:|")
    for row in measured:
        numbers = f"{row['ms a region']:.2f} | {row['times zoo']:.1f} | {row['goal']} | {row['deviation']:.1e}"
        print(f"| {row['task']} | {row['candidate']} | {numbers} |")
    if max(row["deviation"] for row in measured) > TOLERANCE:
        raise SystemExit(f"logarithms differ by more than {TOLERANCE:.0e}")


if __name__ == "__main__":
    main()
