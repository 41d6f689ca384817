"""The nearest of distances that come block by block."""

from __future__ import annotations

import numpy as np


class Nearest:
    """Keeps the k least distances and their positions; of equal ones those that came first."""

    def __init__(self, k: int) -> None:
        self.k = k
        self._distances, self._positions = np.empty(0, np.float32), np.empty(0, np.int64)

    def add(self, distances: np.ndarray, start: int) -> None:
        """Takes the distances (n,) of positions `start` …; infinite ones are left out."""
        bound = self._distances[-1] if len(self._distances) == self.k else np.inf
        if len(distances) > self.k:
            bound = min(bound, np.partition(distances, self.k - 1)[self.k - 1])
        near = np.flatnonzero((distances <= bound) & (distances < np.inf))
        both = np.concatenate([self._distances, distances[near]])
        order = both.argsort(kind="stable")[: self.k]
        self._distances, self._positions = both[order], np.concatenate([self._positions, start + near])[order]

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions (n,) int64 and distances (n,), n at most k, the nearest first."""
        return self._positions, self._distances
