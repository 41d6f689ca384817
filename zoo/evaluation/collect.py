"""Gathers what a model says of every image, over batches and ranks, back into the order of the split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from zoo.ops.gather import gather_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class Collected:
    """What the images of a split gave, in its order.

    `index (N,)` positions in the split, increasing; `vectors` name → (N, D), or (N, R, D) where an image has several;
    `scores` name → mean over the split; `fields` name → (N, ...), those fields of `Representation` that were kept;
    `sums` name → what was added up over the split.
    """

    index: Tensor
    vectors: dict[str, Tensor]
    scores: dict[str, float]
    fields: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Collector:
    """Takes one batch after the other on each rank; a rank may stay without any."""

    index: list[Tensor] = field(default_factory=list)
    vectors: dict[str, list[Tensor]] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)
    fields: dict[str, list[Tensor]] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(
        self,
        index: Tensor,
        vectors: dict[str, Tensor],
        scores: dict[str, Tensor],
        fields: Mapping[str, Tensor] | None = None,
        sums: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Keeps positions (B,), named vectors (B, D) or (B, R, D), fields (B, ...).

        Adds up named (sum, count) pairs, and named tensors of any shape.
        """
        self.index.append(index)
        for name, rows in vectors.items():
            self.vectors.setdefault(name, []).append(rows)
        for name, rows in (fields or {}).items():
            self.fields.setdefault(name, []).append(rows)
        for name, pair in scores.items():
            self.scores[name] = self.scores.get(name, torch.zeros_like(pair)) + pair
        for name, part in (sums or {}).items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(part)) + part

    def gather(self, device: torch.device) -> Collected:
        """Returns everything on every rank, on the CPU; collective, so that all ranks must call it.

        Raises ValueError, on all ranks alike, for rows of one name that differ in shape.
        """
        vectors, fields = _joined(self.vectors, device), _joined(self.fields, device)
        index = torch.cat(self.index) if self.index else torch.empty(0, dtype=torch.int64, device=device)
        scores, sums = (
            _joined({name: [part[None]] for name, part in held.items()}, device) for held in (self.scores, self.sums)
        )
        index = gather_rows(index).cpu()
        order = index.argsort()
        return Collected(
            index[order],
            {name: gather_rows(rows).cpu()[order] for name, rows in vectors.items()},
            {name: _mean(gather_rows(pairs).sum(0)) for name, pairs in scores.items()},
            {name: gather_rows(rows).cpu()[order] for name, rows in fields.items()},
            {name: gather_rows(parts).sum(0).cpu() for name, parts in sums.items()},
        )


def _mean(pair: Tensor) -> float:
    return (pair[0] / pair[1]).item()


def _joined(parts: Mapping[str, list[Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Joins this rank's batches; one that saw none gets empty tensors of the names and shapes that the others hold."""
    schema = {name: sorted({(tuple(rows.shape[1:]), str(rows.dtype)) for rows in held}) for name, held in parts.items()}
    schemas = _of_all_ranks(schema)
    for name in dict.fromkeys(name for each in schemas for name in each):
        shapes = {shape for each in schemas for shape, _ in each.get(name, ())}
        if len(shapes) > 1:
            raise ValueError(
                f"{name}: all images must give one shape to be compared, got {sorted(shapes)[:3]}; set "
                "data.image_size to one size for all of them"
            )
    agreed = max(schemas, key=len)
    return {
        name: torch.cat(parts[name]) if name in parts else _none_of(*held[0], device) for name, held in agreed.items()
    }


def _none_of(shape: tuple[int, ...], dtype: str, device: torch.device) -> Tensor:
    return torch.empty((0, *shape), dtype=getattr(torch, dtype.removeprefix("torch.")), device=device)


def _of_all_ranks(schema: dict[str, list]) -> list[dict[str, list]]:
    if not (dist.is_available() and dist.is_initialized()):
        return [schema]
    schemas: list[dict] = [{}] * dist.get_world_size()
    dist.all_gather_object(schemas, schema)
    return schemas
