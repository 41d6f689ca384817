"""Times re-ranking by the graph neural network at the thesis' sizes: a query, the gather of its hits, a training step.

    python tools/benchmarks/gnn_rerank.py [--rounds 5] [--batch 4]

One process and thread, CPU time, candidates interleaved, median over the rounds; bf16 only where the CPU computes it,
GPU only where there is one. Goals against what starts from 4,096-d descriptors in fp32: a query 3 times as fast in bf16
from projected ones, the gather 10 times, a training step 2.8 times in bf16; and positional affinity, looked up in the
table of all pairs, at most a tenth of a training step.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import numpy as np
import torch
from timing import measured
from torch import Tensor

import zoo
from zoo.models.gnn_rerank.net import similarities
from zoo.ops.field_of_view import affinity_block, overlapping_pairs
from zoo.ops.losses import quantized_ap_loss
from zoo.ops.processor import cpu_computes_bf16

HITS, ANCHORS, DIMENSION, PROJECTION = 319, 127, 4096, 512
DATABASE, STREET = 50_000, 7.0  # images of the table, m of street between them
BF16 = "skipped: this CPU has no bf16 instructions"

Candidate = Callable[[], object] | None


def networks() -> dict[str, object]:
    torch.manual_seed(0)
    return {name: zoo.create_model("gnn_rerank", affinities=["field_of_view"]).net for name in ("fp32", "bf16")}


def hits(batch: int, size: int = DATABASE) -> Tensor:
    rows = [torch.randperm(size, generator=torch.Generator().manual_seed(k))[: 1 + HITS] for k in range(batch)]
    return torch.stack(rows)


def query_path(net: object, table: Tensor, projected: Tensor) -> dict[str, tuple[str, Candidate]]:
    rows = hits(1)
    affinities = torch.rand(1, HITS, 1, ANCHORS)

    @torch.no_grad()
    def run(source: Tensor, project: bool, dtype: torch.dtype = torch.float32) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = net.project(source[rows]) if project else source[rows]
            return net(found, affinities)

    net.eval()
    fast = (lambda: run(projected, False, torch.bfloat16)) if cpu_computes_bf16() else None
    return {
        "query from 4,096-d, fp32": ("", lambda: run(table, True)),
        "query from projected, fp32": ("", lambda: run(projected, False)),
        "query from projected, bf16": (">= 3", fast),
    }


def gathers(table: Tensor, projected: Tensor, batch: int) -> dict[str, tuple[str, Candidate]]:
    rows = hits(batch)
    return {
        f"gather of {batch} x 320 rows, 4,096-d fp32": ("", lambda: table[rows]),
        f"gather of {batch} x 320 rows, 512-d fp32": (">= 10", lambda: projected[rows]),
    }


def training(net: object, table: Tensor, projected: Tensor, batch: int) -> dict[str, tuple[str, Candidate]]:
    rows, affinities = hits(batch), torch.rand(batch, HITS, 1, ANCHORS)
    relevant = torch.rand(batch, HITS) < 0.1
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

    def step(source: Tensor, raw: bool, bf16: bool = False) -> None:
        net.train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            found = source[rows]
            if raw:
                with torch.no_grad():
                    found = net.project(found)
            refined = net.refine(found, affinities)
        quantized_ap_loss(similarities(refined).float(), relevant, 20).backward()
        optimizer.step()
        optimizer.zero_grad()

    fast = (lambda: step(projected, False, True)) if cpu_computes_bf16() else None
    return {
        f"training step of {batch}, 4,096-d fp32": ("", lambda: step(table, True)),
        f"training step of {batch}, projected fp32": ("", lambda: step(projected, False)),
        f"training step of {batch}, projected bf16": (">= 2.8", fast),
    }


def print_rows(rows: dict[str, tuple[str, Candidate]], rounds: int) -> dict[str, float]:
    """Prints a line for each, the first being what the others are compared with."""
    seconds = measured({name: run for name, (_, run) in rows.items() if run is not None}, rounds)
    first = next(iter(seconds.values()))
    for name, (goal, _) in rows.items():
        if name not in seconds:
            print(f"{name:44}{BF16}")
            continue
        print(f"{name:44}{seconds[name] * 1e3:10.1f}{first / seconds[name]:8.1f}{goal:>8}")
    return seconds


def print_affinity(step: float, batch: int, rounds: int) -> None:
    """Prints what looking up positional affinity adds to a training step, and what the table takes to make."""
    rng = np.random.default_rng(0)
    along = rng.uniform(0, DATABASE * STREET / 4, DATABASE)  # four passes over the streets
    poses = np.column_stack([along, rng.normal(0, 5, DATABASE), rng.choice([90.0, 270.0], DATABASE)])
    place = measured({"table": lambda: overlapping_pairs(poses, 50.0, 90.0, "area")}, 1)["table"]
    table = overlapping_pairs(poses, 50.0, 90.0, "area")
    order = np.argsort(along)  # a half of the hits stand near one another, as those of a query do
    near = [order[start : start + HITS // 2] for start in rng.integers(0, DATABASE - HITS, batch)]
    far = [rng.permutation(np.setdiff1d(order, each))[: HITS - len(each)] for each in near]
    rows = np.stack([rng.permutation(np.concatenate(both)) for both in zip(near, far, strict=True)])
    taken = measured({"block": lambda: affinity_block(*table, rows, rows[:, :ANCHORS])}, rounds)["block"]
    share = f"{taken / step:.1%} of the step (goal <= 10%)"
    print(f"{f'positional affinity of {batch} queries':44}{taken * 1e3:10.1f}   {share}")
    print(f"table of {len(table[1]):,} pairs of {DATABASE:,} images: {place:.1f} s, once")


def print_gpu(net: object, rounds: int) -> None:
    if not torch.cuda.is_available():
        print("GPU: skipped, there is none")
        return
    net = net.cuda().eval()
    found, affinities = torch.rand(32, 1 + HITS, PROJECTION).cuda(), torch.rand(32, HITS, 1, ANCHORS).cuda()
    times = []
    for _ in range(rounds + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
            net(found, affinities)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    print(f"{torch.cuda.get_device_name()}, bf16: {32 / sorted(times)[len(times) // 2]:,.0f} queries/s at K = {HITS}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4, help="queries of a training step (%(default)s; thesis: 32)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = torch.randn(DATABASE, DIMENSION, generator=torch.Generator().manual_seed(0))
    net, other = networks().values()
    with torch.no_grad():
        projected = torch.cat([net.eval().project(part) for part in table.split(4096)])
    flag = "yes" if cpu_computes_bf16() else "no"
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, bf16 instructions: {flag}\n")
    print(f"{'':44}{'ms':>10}{'times':>8}{'goal':>8}")
    print_rows(query_path(net, table, projected), options.rounds)
    print_rows(gathers(table, projected, 32), options.rounds)
    steps = print_rows(training(other, table, projected, options.batch), options.rounds)
    print_affinity(list(steps.values())[1], options.batch, options.rounds)
    print_gpu(net, options.rounds)


if __name__ == "__main__":
    main()
