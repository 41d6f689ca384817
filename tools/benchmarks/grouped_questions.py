"""Training steps of the 2S-RN with questions grouped by image against the same network recomputed per question.

    python tools/benchmarks/grouped_questions.py [--images 4] [--rounds 5]

One process, one thread, CPU time, the same input, candidates interleaved, median over the rounds. The paper's
Sort-of-CLEVR network (g 2048-1024-512-256), 20 questions an image, dropout off. Goals: 15 times in fp32, 35 times for
grouped bf16 against per-question fp32 where the CPU has avx512_bf16.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.two_stage_rn.net import TwoStageRNNet

QUESTIONS = 20
TOLERANCE = 1e-5


def build() -> TwoStageRNNet:
    torch.manual_seed(0)
    return TwoStageRNNet(
        conv=[24] * 4,
        g=[2048, 1024, 512, 256],
        h=[256],
        f=[256, 256],
        question_layer=4,
        question_dim=11,
        answers=10,
        coordinate_range=4.0,
        pair_scale=0.04,
        dropout=0.0,
        chunk=4,
    )


def grouped_loss(net: TwoStageRNNet, images: Tensor, questions: Tensor, answers: Tensor) -> Tensor:
    return F.cross_entropy(net(images, questions).float().flatten(0, 1), answers.flatten())


def per_question_loss(net: TwoStageRNNet, images: Tensor, questions: Tensor, answers: Tensor) -> Tensor:
    repeated = images.repeat_interleave(QUESTIONS, dim=0)
    logits = net(repeated, questions.flatten(0, 1)[:, None])
    return F.cross_entropy(logits.float().flatten(0, 1), answers.flatten())


def step(
    loss_of: Callable[..., Tensor], net: TwoStageRNNet, batch: tuple[Tensor, ...], bf16: bool
) -> tuple[float, float]:
    """Return CPU seconds of one forward and backward pass, and its loss."""
    net.zero_grad()
    start = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = loss_of(net, *batch)
    loss.backward()
    return time.process_time() - start, loss.item()


def measure(images: int, rounds: int, has_bf16: bool) -> dict[str, tuple[float, float]]:
    """Return median CPU seconds and the loss of every candidate."""
    candidates = {"per question, fp32": (per_question_loss, False), "grouped, fp32": (grouped_loss, False)}
    if has_bf16:
        candidates["grouped, bf16"] = (grouped_loss, True)
    net = build()
    questions = (torch.rand(images, QUESTIONS, 11) < 0.3).float()
    batch = torch.rand(images, 3, 75, 75), questions, torch.randint(0, 10, (images, QUESTIONS))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    losses = {}
    for turn in range(rounds + 1):
        for name, (loss_of, bf16) in candidates.items():
            seconds, losses[name] = step(loss_of, net, batch, bf16)
            # The first round warms up allocators and kernel caches.
            times[name] += [seconds] if turn else []
    return {name: (statistics.median(values), losses[name]) for name, values in times.items()}


def cpu_has_bf16() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and "avx512_bf16" in flags.read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    has_bf16 = cpu_has_bf16()
    results = measure(options.images, options.rounds, has_bf16)
    reference, loss = results["per question, fp32"]
    print(
        f"2S-RN, g 2048-1024-512-256, {options.images} images x {QUESTIONS} questions, one thread, forward + backward"
    )
    print(f"avx512_bf16: {'yes' if has_bf16 else 'no (bf16 row skipped)'}\n")
    print(f"{'':20}{'CPU ms/image':>14}{'questions/s':>14}{'speed-up':>10}{'loss':>12}")
    for name, (seconds, value) in results.items():
        rate = options.images * QUESTIONS / seconds
        cost = 1e3 * seconds / options.images
        print(f"{name:20}{cost:14.1f}{rate:14.1f}{reference / seconds:9.1f}x{value:12.6f}")
    gap = abs(results["grouped, fp32"][1] - loss)
    print(f"\nfp32 losses differ by {gap:.1e} (allowed {TOLERANCE:.0e})")
    if gap > TOLERANCE:
        raise SystemExit("the grouped and the per-question network disagree")


if __name__ == "__main__":
    main()
