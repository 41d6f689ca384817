"""Hits as they come from any database: plain arrays, and what is known of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.affinities import Affinity, columns_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def read_rows(name: str, values: Any, dimension: int | None, one: bool = False) -> Tensor:
    """Returns descriptors (N, D) in single precision; (1, D) of a single one (D,), where it must be `one`.

    Raises ValueError, in the name of `name`, for another D than `dimension`, or values that aren't finite.
    """
    if isinstance(values, np.ndarray) and not values.flags.writeable:  # a mapped file; torch would warn
        values = values.copy()
    rows = torch.as_tensor(values).detach().float()
    if rows.dim() != (1 if one else 2) or (dimension is not None and rows.shape[-1] != dimension):
        wanted = f"{'D' if dimension is None else dimension}"
        shape = f"({wanted},)" if one else f"(…, {wanted})"
        as_trained = "" if dimension is None else ", as in training" if not one else ", as the hits"
        raise ValueError(f"{name} must be {shape}{as_trained}, got {tuple(rows.shape)}")
    if not rows.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return rows[None] if one else rows


def hit_affinities(affinities: Sequence[Affinity], anchors: int, metadata: Any, count: int) -> Tensor:
    """Returns (1, K, A, L) of the K hits that `metadata` describes, with the first L of them.

    Raises ValueError where metadata lack what an affinity reads, or are of another number of hits.
    """
    if metadata is None:
        fields = ", ".join(dict.fromkeys(field for each in affinities for field in each.fields))
        raise ValueError(f"metadata must hold {fields} of every hit: the model was trained with them")
    return torch.stack([_one(each, anchors, metadata, count) for each in affinities], dim=1)[None]


def _one(affinity: Affinity, anchors: int, metadata: Any, count: int) -> Tensor:
    columns = columns_of(metadata, affinity.fields)
    for name, values in columns.items():
        if values.shape != (count,):
            raise ValueError(f"metadata {name} must be one number a hit, got {tuple(values.shape)} for {count} hits")
    first = {name: values[None, :anchors] for name, values in columns.items()}
    return affinity({name: values[:, None] for name, values in columns.items()}, first).float()


def first_alike(hits: Tensor, affinities: Tensor | None) -> list[int]:
    """Returns for each hit the first that is the same: rounding must not tell apart what is equal."""
    known: dict[tuple[bytes, ...], int] = {}
    said = [[]] * len(hits) if affinities is None else affinities[0].cpu().numpy()
    rows = zip(hits.cpu().numpy(), said, strict=True)
    keys = [tuple(part.tobytes() for part in row if len(part)) for row in rows]
    return [known.setdefault(key, place) for place, key in enumerate(keys)]
