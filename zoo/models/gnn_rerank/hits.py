"""Hits as they come from any database: plain arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
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
        shape = f"({wanted},)" if one else f"(N, {wanted})"
        as_trained = "" if dimension is None else ", as in training" if not one else ", as the hits"
        raise ValueError(f"{name} must be {shape}{as_trained}, got {tuple(rows.shape)}")
    if not rows.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return rows[None] if one else rows


def first_alike(hits: Tensor, affinities: Tensor | None) -> list[int]:
    """Returns for each hit the first that is the same: rounding must not tell apart what is equal."""
    known: dict[tuple[bytes, ...], int] = {}
    said = [[]] * len(hits) if affinities is None else affinities[0].cpu().numpy()
    rows = zip(hits.cpu().numpy(), said, strict=True)
    keys = [tuple(part.tobytes() for part in row if len(part)) for row in rows]
    return [known.setdefault(key, place) for place, key in enumerate(keys)]
