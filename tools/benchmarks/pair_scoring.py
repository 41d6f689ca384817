"""Times the scoring of correlation volumes against a loop over pairs, and a shortlist with its correlation.

    python tools/benchmarks/pair_scoring.py [--pairs 192] [--rounds 5] [--weights cut_paste]

One process and thread, CPU time, candidates interleaved, median over the rounds; bf16 only where the CPU computes it,
GPU only where there is one. Goals: twice the loop in fp32, 4.5 times it in compiled bf16 with 99 of the best 100, and a
shortlist of 5,000 images, correlation from codes included, in 5 s of one core.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import torch
import torch.nn.functional as F
from timing import measured
from torch import Tensor

from zoo.models.local_similarity.head import CorrelationHead, Found
from zoo.models.local_similarity.scoring import TOLERANCE, PairScorer
from zoo.ops.correlation import correlation_volume
from zoo.ops.processor import cpu_computes_bf16
from zoo.search.local_maps import correlations
from zoo.search.quantizer import ProductQuantizer
from zoo.types import Representation

QUERY, GALLERY, CHANNELS = 7, 15, (128, 64)  # the paper's
SHORTLIST, PARTS, CENTROIDS, DIMENSIONS = 5_000, 128, 256, (1280, 2048)
RANKED, BEST = 1_000, 100
OPERATIONS = 2 * 84.5e6  # of a pair
GPU_PAIRS, GPU_GOAL = 8_192, 160_000

Candidate = Callable[[], Found]


def random_pairs(count: int, dimension: int = 16) -> Tensor:
    """Returns volumes of smooth maps, of which every other gallery map has the query in it, with noise."""
    generator = torch.Generator().manual_seed(0)

    def smooth(size: int) -> Tensor:
        coarse = torch.randn(count, dimension, size // 2 + 1, size // 2 + 1, generator=generator)
        return F.interpolate(coarse, size=size, mode="bilinear")

    query, gallery = smooth(QUERY), smooth(GALLERY)
    for pair in range(0, count, 2):
        y, x = torch.randint(0, GALLERY - QUERY + 1, (2,), generator=generator).tolist()
        noise = 3 * torch.rand(1, generator=generator) * torch.randn(dimension, QUERY, QUERY, generator=generator)
        gallery[pair, :, y : y + QUERY, x : x + QUERY] = query[pair] + noise
    return correlation_volume(F.normalize(gallery, dim=1), F.normalize(query, dim=1))


def loop(head: CorrelationHead, volumes: Tensor) -> Found:
    found = [head(volume[None]) for volume in volumes]
    return Found(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def candidates(head: CorrelationHead, volumes: Tensor) -> dict[str, tuple[str, Candidate | None]]:
    """Returns for each candidate its goal in times the loop, and what runs it if this CPU can."""
    scorer, whole = PairScorer(head), [(slice(0, len(volumes)), volumes)]
    bf16 = PairScorer(head, "bf16") if cpu_computes_bf16() else None
    return {
        "loop over pairs, eager fp32": ("", lambda: loop(head, volumes)),
        "batches of 64, eager fp32": ("", lambda: _batches(head, volumes)),
        "PairScorer, fp32": (">= 2", lambda: scorer.score(whole)),
        "PairScorer, bf16 compiled": (">= 4.5", None if bf16 is None else lambda: bf16.score(whole)),
    }


def _batches(head: CorrelationHead, volumes: Tensor) -> Found:
    found = [head(block) for block in volumes.split(64)]
    return Found(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def print_scoring(head: CorrelationHead, volumes: Tensor, rounds: int) -> None:
    chosen = candidates(head, volumes)
    runs = {name: run for name, (_, run) in chosen.items() if run is not None}
    seconds = measured(runs, rounds)
    (reference, slowest), *_ = seconds.items()
    expected = runs[reference]().logits.softmax(1)
    print(f"{'':30}{'ms a pair':>10}{'GF/s':>8}{'times the loop':>16}{'goal':>8}{'probabilities differ':>22}")
    for name, (goal, run) in chosen.items():
        if run is None:
            print(f"{name:30}skipped: this CPU has no bf16 instructions")
            continue
        taken, gap = seconds[name] / len(volumes), (run().logits.softmax(1) - expected).abs().max().item()
        rate = f"{OPERATIONS / taken / 1e9:.0f}"
        print(f"{name:30}{taken * 1e3:10.2f}{rate:>8}{slowest / seconds[name]:16.1f}{goal:>8}{gap:22.1e}")
        if name == "PairScorer, fp32" and gap > TOLERANCE:
            raise SystemExit(f"probabilities differ by more than {TOLERANCE:.0e}")


def print_overlap(head: CorrelationHead) -> None:
    volumes = random_pairs(RANKED)
    best = _best(_batches(head, volumes))
    for precision in ("fp32", "bf16") if cpu_computes_bf16() else ("fp32",):
        found = PairScorer(head, precision).score([(slice(0, RANKED), volumes)])
        print(f"top {BEST} of {RANKED:,} shared with the loop, {precision}: {len(best & _best(found))} (goal >= 99)")


def _best(found: Found) -> set[int]:
    return set(found.logits.diff(dim=1)[:, 0].topk(BEST).indices.tolist())


def print_shortlist(head: CorrelationHead, rounds: int) -> None:
    scorer = PairScorer(head)
    for dimension in DIMENSIONS:
        generator = torch.Generator().manual_seed(0)
        centroids = torch.randn(PARTS, CENTROIDS, dimension // PARTS, generator=generator)
        shape = (SHORTLIST, GALLERY, GALLERY, PARTS)
        codes = torch.randint(0, CENTROIDS, shape, dtype=torch.uint8, generator=generator)
        hits = Representation(local_codes=codes, quantizer=ProductQuantizer(centroids))
        query = F.normalize(torch.randn(dimension, QUERY, QUERY, generator=generator), dim=0)
        runs = {
            "correlation": lambda query=query, hits=hits: [None for _ in correlations(query, hits)],
            "correlation and scoring": lambda query=query, hits=hits: scorer.score(correlations(query, hits)),
        }
        seconds = measured(runs, rounds)
        whole, alone = seconds["correlation and scoring"], seconds["correlation"]
        said = f"{whole:.2f} core-seconds (goal <= 5), of which correlation from codes {alone:.2f}"
        print(f"shortlist of {SHORTLIST:,}, M = {PARTS}, D = {dimension}: {said}")


def print_gpu(head: CorrelationHead, rounds: int) -> None:
    if not torch.cuda.is_available():
        print("GPU: skipped, there is none")
        return
    volumes = torch.rand(GPU_PAIRS, QUERY**2, GALLERY, GALLERY, device="cuda")
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    peak = 2 * 8192**3 / _gpu_seconds(lambda: square @ square, rounds)
    for precision in ("fp32", "bf16"):
        scorer = PairScorer(head.cuda(), precision)
        rate = GPU_PAIRS / _gpu_seconds(lambda scorer=scorer: scorer(volumes), rounds)
        share = f"{rate * OPERATIONS / peak:.1%} of the {peak / 1e12:.0f} TF/s of a bf16 matrix product"
        print(f"{torch.cuda.get_device_name()}, {precision}: {rate:,.0f} pairs/s (goal >= {GPU_GOAL:,}), {share}")


def _gpu_seconds(run: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--weights", help="of a trained model; without, the network is random")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    head = trained(options.weights) if options.weights else CorrelationHead(QUERY**2, GALLERY, CHANNELS)
    head = head.eval().requires_grad_(False)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, bf16 instructions: {_bf16()}")
    print(f"{options.pairs} pairs of {QUERY}x{QUERY} and {GALLERY}x{GALLERY}, CPU time of one thread\n")
    print_scoring(head, random_pairs(options.pairs), options.rounds)
    print()
    print_overlap(head)
    print_shortlist(head, max(1, options.rounds // 2))
    print_gpu(head, options.rounds)


def _bf16() -> str:
    return "yes" if cpu_computes_bf16() else "no"


def trained(weights: str) -> CorrelationHead:
    import zoo

    return zoo.create_model("local_similarity", weights=weights).net.head


if __name__ == "__main__":
    main()
