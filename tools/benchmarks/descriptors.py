"""Descriptors of the 2S-RN for CLEVR: images a second, memory, and what 15,000 images take.

    python tools/benchmarks/descriptors.py [--images 64] [--rounds 5] [--threads 1] [--chunk 2]

One process; CPU time of one thread, or wall time of several; candidates interleaved, median over the rounds. A batch is
embedded at once, as `zoo eval` does. "plain" builds all pairs of the batch and runs the first layer of g on each.
Goal: the 15,000 images of CLEVR's val split within an hour of two cores.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor

import zoo
from zoo.ops.relations import relate_pairs
from zoo.types import Batch

VAL_IMAGES = 15_000
TOLERANCE = 1e-5
NETWORK = {
    "g": [256, 256], "h": [256, 256], "question_layer": 2, "vocabulary": "clevr", "question_dim": 128, "answers": 28,
    "question_groups": None, "aggregation": "avg", "convention": "authors",
}  # fmt: skip


def plain(model: object, batch: Batch) -> Tensor:
    """Returns the avg of L2-normalised pairs as the paper writes it, for the whole batch at once."""
    net = model.net
    state = relate_pairs(net._objects(net.conv(batch.images)))
    for layer in net.g:
        state = F.relu(layer(state))
    return F.normalize(state, dim=-1).mean(dim=1)


def peak() -> float:
    """Returns the largest memory that this process has had so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30)


def median(times: list[float]) -> float:
    # The first round warms up allocators and kernel caches.
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    model = zoo.create_model("two_stage_rn", **NETWORK, chunk=options.chunk).eval()
    batch = Batch(index=torch.arange(options.images), images=torch.rand(options.images, 3, 128, 128))
    candidates: dict[str, Callable[[], object]] = {
        "one descriptor": lambda: model.embed(batch).vector,
        "all six": lambda: model.descriptors(batch),
        "plain, one": lambda: plain(model, batch),
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    memory = {}
    with torch.no_grad():
        # In this order, since the peak of a process never falls.
        for name, run in candidates.items():
            before = peak()
            run()
            memory[name] = f"{before:.2f} -> {peak():.2f}"
        for _ in range(options.rounds + 1):
            for name, run in candidates.items():
                start = clock()
                run()
                times[name].append(clock() - start)
        gap = (model.embed(batch).vector - plain(model, batch)).abs().max().item()
    print(f"2S-RN for CLEVR, 4,096 pairs, fp32, {options.images} images a batch, chunk {options.chunk}")
    kind = "CPU time of one thread" if options.threads == 1 else f"wall time of {options.threads} threads"
    print(f"{kind}\n\n{'':16}{'images/s':>10}{'15,000 images':>16}{'peak memory, GB':>20}")
    for name, values in times.items():
        rate = options.images / median(values)
        print(f"{name:16}{rate:10.0f}{VAL_IMAGES / rate / 60:12.1f} min{memory[name]:>20}")
    print(f"\ndescriptors differ from the plain ones by {gap:.1e} (allowed {TOLERANCE:.0e})")
    if gap > TOLERANCE:
        raise SystemExit("the descriptors are not those of the plain network")


if __name__ == "__main__":
    main()
