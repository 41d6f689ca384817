"""Fast scoring of many correlation volumes with one network, for searching."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from zoo.models.local_similarity.head import Found
from zoo.ops.processor import cpu_computes_bf16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from zoo.models.local_similarity.head import CorrelationHead

log = logging.getLogger("zoo")

PRECISIONS = ("fp32", "bf16")
TOLERANCE = 1e-3  # by which a probability in fp32 may differ from the network's own
REFINED = 150  # pairs of a search in bf16 that are scored again in fp32: a hundred, and those that come close
CPU_BLOCK, DEVICE_BLOCK = 64, 2048  # pairs


def check_precision(precision: str) -> None:
    """Raises ValueError for a precision that isn't known."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")


class PairScorer:
    """Scores correlation volumes as `head` does in evaluation, without gradients, but several times as fast.

    It keeps a copy of the weights: make it once per search, and anew when they have changed. In fp32 the probability
    of presence differs from the network's by at most `TOLERANCE`. `precision="bf16"` compiles the network on the CPU,
    which takes 20 s and more and a C++ compiler, and pays from thousands of pairs on where the CPU has bf16
    instructions; `score` then computes the best pairs again in fp32. Raises ValueError for another precision.
    """

    def __init__(self, head: CorrelationHead, precision: str = "fp32") -> None:
        check_precision(precision)
        self._head = copy.deepcopy(head).eval().requires_grad_(False)
        self._device = self._head.exists.weight.device
        self._exact = PairScorer(head) if precision == "bf16" and self._device.type == "cpu" else None
        self._features = self._chosen(precision)

    @torch.no_grad()
    def __call__(self, volumes: Tensor) -> Found:
        """Returns what is found in `volumes` (B, Hq * Wq, Hg, Wg), any B, on the device of the head's weights.

        Raises ValueError for other grids than the head's.
        """
        self._head.check(volumes)
        volumes = volumes.to(self._device)
        return self._head.decide(self._features(volumes), volumes)

    def score(self, blocks: Iterable[tuple[slice, Tensor]]) -> Found:
        """Returns what is found in all `blocks` of (rows, volumes), of which each goes on where the last one ended.

        Holds one block at a time, and in bf16 on the CPU the volumes of the `REFINED` best pairs so far, which are
        scored again in fp32: the head of a ranking is that of fp32. Raises ValueError for a block in another place.
        """
        found = [Found(torch.empty(0, 2, device=self._device), torch.empty(0, 4, device=self._device))]
        best, count = _Best(), 0
        for rows, volumes in blocks:
            if rows.start != count or rows.stop != count + len(volumes):
                raise ValueError(f"a block must be rows {count} to {count + len(volumes)}, got {rows}")
            found.append(self(volumes))
            if self._exact is not None:
                best.add(rows, volumes, found[-1].logits)
            count = rows.stop
        together = Found(*(torch.cat(parts) for parts in zip(*found, strict=True)))
        if self._exact is not None and count:
            for all_pairs, refined in zip(together, self._exact(best.volumes), strict=True):
                all_pairs[best.rows] = refined
        return together

    def _chosen(self, precision: str) -> Callable[[Tensor], Tensor]:
        convolutions = self._head.convolutions
        if self._device.type != "cpu":
            convolutions.to(memory_format=torch.channels_last)
            return _Device(convolutions, self._device.type, precision == "bf16")
        if precision == "bf16":
            if not cpu_computes_bf16():
                log.warning("this CPU has no bf16 instructions: precision=fp32 is faster")
            return _CompiledBf16(convolutions)
        # numba is slow to load.
        from zoo.models.local_similarity.winograd import WinogradConvolutions

        return WinogradConvolutions(convolutions, self._head.gallery_grid)


class _Best:
    """Keeps the volumes and rows of the `REFINED` pairs most surely present."""

    def __init__(self) -> None:
        self.scores, self.rows, self.volumes = torch.empty(0), torch.empty(0, dtype=torch.int64), torch.empty(0)

    def add(self, rows: slice, volumes: Tensor, logits: Tensor) -> None:
        scores = logits.diff(dim=1)[:, 0]
        fresh = scores.topk(min(REFINED, len(scores))).indices
        candidates = torch.cat([self.scores, scores[fresh]])
        kept = candidates.topk(min(REFINED, len(candidates))).indices
        self.scores = candidates[kept]
        self.rows = torch.cat([self.rows, fresh + rows.start])[kept]
        self.volumes = torch.cat([self.volumes, volumes[fresh]])[kept] if len(self.volumes) else volumes[fresh][kept]


class _Device:
    """The network in large blocks on a GPU, channels last, under autocast where bf16 is asked for."""

    def __init__(self, convolutions: torch.nn.Sequential, kind: str, bf16: bool) -> None:
        self._convolutions, self._kind, self._bf16 = convolutions, kind, bf16

    def __call__(self, volumes: Tensor) -> Tensor:
        found = []
        for block in volumes.split(DEVICE_BLOCK):
            with torch.autocast(self._kind, torch.bfloat16, enabled=self._bf16):
                maps = self._convolutions(block.contiguous(memory_format=torch.channels_last))
            found.append(maps.flatten(1).float())
        return torch.cat(found)


class _CompiledBf16:
    """The convolutions in bf16, compiled for blocks of one size; falls back on the same uncompiled, with a warning."""

    def __init__(self, convolutions: torch.nn.Sequential) -> None:
        self._plain = convolutions.to(torch.bfloat16, memory_format=torch.channels_last)
        self._run: Callable[[Tensor], Tensor] = torch.compile(self._plain, dynamic=False)

    def __call__(self, volumes: Tensor) -> Tensor:
        return torch.cat([self._block(block) for block in volumes.split(CPU_BLOCK)])

    def _block(self, volumes: Tensor) -> Tensor:
        missing = CPU_BLOCK - len(volumes)  # another size would be compiled anew
        padded = F.pad(volumes, (0, 0) * 3 + (0, missing)).to(torch.bfloat16, memory_format=torch.channels_last)
        try:
            maps = self._run(padded)
        except Exception as error:  # whatever is missing here: if it is not the compiler, the plain network raises too
            if self._run is self._plain:
                raise
            log.warning("the network could not be compiled (%s): it runs uncompiled", type(error).__name__)
            self._run = self._plain
            maps = self._run(padded)
        return maps[: len(volumes)].flatten(1).float()  # linear layers in fp32: in bf16 many scores would tie
