"""Probability maps as one byte a class: product quantisation whose parts are the classes (Furuta et al. 2018)."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from zoo.search._checks import all_finite

if TYPE_CHECKING:
    from torch import Tensor

MOST = 256  # centroids of a class, as many as a byte can number
STEPS = 255  # between the probabilities 0 and 1
ABSENT = 0  # the code of a map in which the class is nowhere


class MapCodebook:
    """K centroids for each of C classes, by which a probability map (C, H, W) becomes C bytes.

    `centroids (C, P, K)` uint8 hold probabilities in 255ths at the P = H * W cells of `grid` (H, W); centroid 0 of
    every class is all zeros, for images without it. Distances are those to what codes decode to, exactly. Methods take
    and return arrays on the CPU. Raises ValueError for another shape, or where a centroid 0 isn't zeros.

    Source: Sec. 3.3 of Furuta et al. 2018, with M = C; centroids as bytes, and the reserved one, are ours.
    """

    def __init__(self, centroids: np.ndarray, grid: tuple[int, int]) -> None:
        if centroids.dtype != np.uint8 or centroids.ndim != 3 or not 1 <= centroids.shape[2] <= MOST:
            got = f"{centroids.dtype} {centroids.shape}"
            raise ValueError(f"centroids must be (C, H * W, K) uint8 with K from 1 to {MOST}, got {got}")
        if centroids.shape[1] != grid[0] * grid[1]:
            raise ValueError(f"grid must have the {centroids.shape[1]} cells of the centroids, got {grid}")
        if centroids[:, :, ABSENT].any():
            raise ValueError(f"centroid {ABSENT} of every class must be zeros, for images without it")
        self.centroids, self.grid = centroids, tuple(grid)

    @property
    def classes(self) -> int:
        """Returns C."""
        return self.centroids.shape[0]

    @property
    def count(self) -> int:
        """Returns K."""
        return self.centroids.shape[2]

    @cached_property
    def squared_norms(self) -> np.ndarray:
        """Returns (C, K) float32: the squared length of every centroid, as a map of probabilities."""
        norms = [np.square(own, dtype=np.uint32).sum(axis=0) for own in self.centroids]
        return (np.stack(norms) / STEPS**2).astype(np.float32)

    def encode(self, maps: Tensor) -> np.ndarray:
        """Returns the codes (C, B) uint8 of `maps (B, C, H, W)`: of equally near centroids the first."""
        self.check(maps, "items")
        rows = maps.detach().cpu().float().flatten(2)
        codes = np.empty((self.classes, len(rows)), np.uint8)
        for name, own in enumerate(self.centroids):
            centroids = torch.from_numpy(own.astype(np.float32))
            nearness = torch.addmm(-self._halves[name], rows[:, name] * STEPS, centroids)
            codes[name] = nearness.numpy().argmax(axis=1)
        return codes

    def decode(self, codes: np.ndarray) -> Tensor:
        """Returns (B, C, H, W) float32: the centroids that `codes (C, B)` name."""
        maps = np.empty((codes.shape[1], self.classes, self.centroids.shape[1]), np.float32)
        for name, own in enumerate(self.centroids):
            maps[:, name] = own.T[codes[name]]
        return torch.from_numpy(maps / STEPS).unflatten(2, self.grid)

    def tables(self, query: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Returns (T, K) float32: squared distances of the maps `query (T, P)` to the centroids of `classes (T,)`."""
        from zoo.search.map_kernels import products

        found = np.empty((len(classes), self.count), np.float32)
        products(query, classes, self.centroids, found)
        lengths = np.square(query, dtype=np.float64).sum(axis=1, keepdims=True)
        return (lengths + self.squared_norms[classes] - found * (2.0 / STEPS)).astype(np.float32)

    def check(self, maps: Tensor, what: str) -> None:
        """Raises ValueError where `maps` isn't (B, C, H, W) of this codebook, or isn't finite."""
        expected = (self.classes, *self.grid)
        if maps.dim() != 4 or maps.shape[1:] != expected:
            raise ValueError(
                f"the probability maps of {what} must be (B, C, H, W), of {expected}, got {tuple(maps.shape)}"
            )
        if not all_finite(maps.detach().cpu().float().numpy()):
            raise ValueError(f"the probability maps of {what} must be finite, got NaN or infinite values")

    def fingerprint(self) -> str:
        """Returns 16 digits that name the centroids."""
        return self._fingerprint

    @property
    def array(self) -> np.ndarray:
        """Returns the centroids as (C, H, W, K)."""
        return self.centroids.reshape(self.classes, *self.grid, self.count)

    @classmethod
    def of(cls, array: np.ndarray) -> MapCodebook:
        """Returns the codebook of centroids (C, H, W, K), without a copy; raises ValueError for anything else."""
        if array.ndim != 4:
            raise ValueError(f"a codebook of probability maps must be (C, H, W, K), got {array.shape}")
        return cls(np.asarray(array).reshape(len(array), -1, array.shape[3]), array.shape[1:3])

    def __repr__(self) -> str:
        return f"MapCodebook(C={self.classes}, K={self.count}, grid={self.grid}, {self._fingerprint})"

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(f"{self.centroids.shape}".encode() + self.centroids.tobytes()).hexdigest()[:16]

    @cached_property
    def _halves(self) -> Tensor:
        """Returns (C, K): half the squared lengths, in the units of rows times 255."""
        return torch.from_numpy(self.squared_norms) * (STEPS**2 / 2)
