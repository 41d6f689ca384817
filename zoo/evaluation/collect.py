"""Gathers what a model says of every image, over batches and ranks, back into the order of the split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from zoo.ops.gather import gather_rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Collected:
    """`index (N,)` positions in the split, increasing; `vectors` name → (N, D); `scores` name → mean over the split."""

    index: Tensor
    vectors: dict[str, Tensor]
    scores: dict[str, float]


@dataclass
class Collector:
    """Takes one batch after the other on each rank; a rank may stay without any."""

    index: list[Tensor] = field(default_factory=list)
    vectors: dict[str, list[Tensor]] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)

    def add(self, index: Tensor, vectors: dict[str, Tensor], scores: dict[str, Tensor]) -> None:
        """Keeps positions (B,), named vectors (B, D) and adds named (sum, count) pairs."""
        self.index.append(index)
        for name, rows in vectors.items():
            self.vectors.setdefault(name, []).append(rows)
        for name, pair in scores.items():
            self.scores[name] = self.scores.get(name, torch.zeros_like(pair)) + pair

    def gather(self, device: torch.device) -> Collected:
        """Returns everything on every rank, on the CPU; collective, so that all ranks must call it."""
        vectors = {name: torch.cat(rows) for name, rows in self.vectors.items()}
        index = torch.cat(self.index) if self.index else torch.empty(0, dtype=torch.int64, device=device)
        vectors = _agree(vectors, device)
        scores = _agree({name: pair[None] for name, pair in self.scores.items()}, device)
        index = gather_rows(index).cpu()
        order = index.argsort()
        return Collected(
            index[order],
            {name: gather_rows(rows).cpu()[order] for name, rows in vectors.items()},
            {name: _mean(gather_rows(pairs).sum(0)) for name, pairs in scores.items()},
        )


def _mean(pair: Tensor) -> float:
    return (pair[0] / pair[1]).item()


def _agree(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Gives a rank that saw no batch empty tensors of the names, widths and types that the other ranks hold."""
    if not (dist.is_available() and dist.is_initialized()):
        return tensors
    schema = [(name, tuple(rows.shape[1:]), rows.dtype) for name, rows in tensors.items()]
    schemas: list[list] = [None] * dist.get_world_size()
    dist.all_gather_object(schemas, schema)
    agreed = max(schemas, key=len)
    return {
        name: tensors[name] if name in tensors else torch.empty((0, *shape), dtype=dtype, device=device)
        for name, shape, dtype in agreed
    }
