"""An index that compares vectors by the sum of absolute differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from zoo.search.stored import Found, StoredIndex, rows_of
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Mapping


class TaxiIndex(StoredIndex):
    """Scores an item by its negative L1 distance in units of `scale`; ids, payloads and files are the zoo's."""

    tiny: ClassVar[Mapping[str, Any]] = {"scale": 2.0}

    def __init__(self, *, scale: float) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale = scale
        self._rows: np.ndarray | None = None

    def prepare(self, items: Representation, what: str) -> np.ndarray:
        """Returns the vectors (B, D)."""
        items.require(self.needs, "acme_taxi")
        return rows_of(items.vector, None if self._rows is None else self._rows.shape[1], what, normalise=False)

    def append(self, rows: np.ndarray) -> None:
        """Adds vectors."""
        self._rows = rows.copy() if self._rows is None else np.concatenate([self._rows, rows])

    def keep(self, mask: np.ndarray) -> None:
        """Drops vectors."""
        self._rows = self._rows[mask]

    def nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Found:
        """Returns the nearest vectors; those that a filter excludes have no position."""
        scores = -np.abs(queries[:, None] - self._rows).sum(axis=2) / self.scale
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        positions = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, positions, axis=1)
        return Found(np.where(best == -np.inf, -1, positions), best)

    def take(self, positions: np.ndarray) -> Representation:
        """Returns vectors."""
        return Representation(vector=torch.from_numpy(self._rows[positions]))

    def segment(self, start: int) -> dict[str, np.ndarray]:
        """Returns the vectors from `start` on."""
        return {"vector": self._rows[start:]}

    def extend(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds the vectors of a segment."""
        self.append(arrays["vector"])
