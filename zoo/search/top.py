"""The nearest of distances that come block by block."""

from __future__ import annotations

import numpy as np

_SAMPLE = 4096  # distances of a block by which most of the others are ruled out


class Nearest:
    """Keeps the k least distances and their positions; of equal ones those that came first."""

    def __init__(self, k: int) -> None:
        self.k = k
        self._distances, self._positions = np.empty(0, np.float32), np.empty(0, np.int64)

    def add(self, distances: np.ndarray, start: int) -> None:
        """Takes the distances (n,) of positions `start` …; infinite ones are left out."""
        near = self._candidates(distances)
        both = np.concatenate([self._distances, distances[near]])
        order = both.argsort(kind="stable")[: self.k]
        self._distances, self._positions = both[order], np.concatenate([self._positions, start + near])[order]

    def _candidates(self, distances: np.ndarray) -> np.ndarray:
        """Returns, in order, positions among which are the k nearest of all and of these `distances`."""
        bound = self._distances[-1] if len(self._distances) == self.k else np.inf
        if len(distances) > self.k:
            # The k-th of a part is at least the k-th of the whole, and found in a fraction of the time.
            bound = min(bound, _kth(distances[:: max(len(distances) // max(_SAMPLE, 2 * self.k), 1)], self.k))
        near = np.flatnonzero((distances <= bound) & (distances < np.inf))
        if len(near) > _SAMPLE:
            near = near[distances[near] <= _kth(distances[near], self.k)]
        return near

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions (n,) int64 and distances (n,), n at most k, the nearest first."""
        return self._positions, self._distances


def _kth(values: np.ndarray, k: int) -> float:
    return np.partition(values, k - 1)[k - 1] if len(values) >= k else np.inf
