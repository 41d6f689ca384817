"""Learns the codebook of probability maps that are too many to be held: a sample on disk, then class by class."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from zoo.files import replacing
from zoo.progress import tracked
from zoo.search.map_codebook import STEPS, MapCodebook

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_ROWS_A_CENTROID = 16  # of the part on which k-means begins
_FIRST, _LAST = 12, 4  # steps on that part, and on all rows
_SETTLED = 1e-3  # share of the objective below which another step gains too little
_STATE, _SAMPLE = "state.json", "sample.u8"


class MapSample:
    """Probability maps as bytes in a file, class after class, so that one class is read at a time.

    `folder` is made where it isn't there. One that was begun with the same `stamp` and `capacity` is gone on with:
    `count` says how many maps it holds; any other is begun anew. The first maps say how large all are.
    """

    def __init__(self, folder: Path, capacity: int, stamp: str) -> None:
        self.folder, self.capacity = folder, capacity
        self._about = {"stamp": stamp, "capacity": capacity}
        state = _read_state(folder / _STATE)
        if not self._about.items() <= state.items():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / _SAMPLE).touch()
            state = {"count": 0, "shape": None}
        self.count: int = state["count"]
        self._shape: tuple[int, ...] | None = state["shape"] and tuple(state["shape"])

    def append(self, maps: Tensor) -> None:
        """Adds `maps (B, C, H, W)`, rounded to 255ths; raises ValueError for other sizes, or more than has room."""
        shape = tuple(maps.shape[1:])
        if self._shape not in (None, shape):
            raise ValueError(f"the probability maps of a sample must all be {self._shape}, got {shape}")
        if self.count + len(maps) > self.capacity:
            raise ValueError(f"the sample has room for {self.capacity} maps, got {self.count + len(maps)}")
        self._shape = shape
        rows = (maps.flatten(2) * STEPS).round().clamp(0, STEPS).to(torch.uint8).transpose(0, 1).contiguous().numpy()
        with (self.folder / _SAMPLE).open("r+b") as file:
            for name, own in enumerate(rows):
                file.seek(self._start(name) + self.count * self._cells)
                file.write(own.tobytes())
            file.flush()
            os.fsync(file.fileno())
        self.count += len(maps)
        with replacing(self.folder / _STATE) as file:
            file.write(json.dumps({**self._about, "count": self.count, "shape": shape}).encode())

    def rows(self, name: int) -> np.ndarray:
        """Returns the maps (count, P) uint8 of one class."""
        wanted = self.count * self._cells
        return np.fromfile(self.folder / _SAMPLE, np.uint8, wanted, offset=self._start(name)).reshape(self.count, -1)

    def learn(self, k: int, seed: int) -> MapCodebook:
        """Returns the codebook of the sample; classes that an interrupted call has learnt aren't learnt again.

        Raises ValueError for an empty sample.
        """
        if self._shape is None:
            raise ValueError("a codebook is learnt from at least one probability map, got none")
        classes, height, width = self._shape
        found = np.empty((classes, height * width, k), np.uint8)
        for name in tracked(range(classes), "learning codes"):
            file = self.folder / f"class-{name}-{self.count}-{k}-{seed}.npy"
            if not file.is_file():
                with replacing(file) as stream:
                    np.save(stream, clustered(self.rows(name), k, seed))
            found[name] = np.load(file, allow_pickle=False)
        return MapCodebook(found, (height, width))

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _cells(self) -> int:
        return self._shape[1] * self._shape[2]

    def _start(self, name: int) -> int:
        return name * self.capacity * self._cells


def clustered(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Returns the k centroids (P, k) uint8 that k-means finds in `rows (N, P)` uint8, the first one zeros.

    The others are those of the rows that aren't zeros. Where these have fewer than k - 1 different ones, all are
    centroids and the rest are zeros. k-means begins on a part of the rows, which settles most of it, and ends on all.
    """
    found = np.zeros((k, rows.shape[1]), np.uint8)
    present = rows[rows.any(axis=1)]
    if k == 1 or not len(present):
        return found.T
    generator = np.random.default_rng(seed)
    different = _different(present, generator)
    if len(different) < k:
        found[1 : 1 + len(different)] = present[different]
        return np.ascontiguousarray(found.T)
    x = torch.from_numpy(present).float()
    centroids = x[generator.permutation(different)[: k - 1]]
    few = generator.permutation(len(x))[: _ROWS_A_CENTROID * k]
    if len(few) < len(x):
        centroids = _settled(x[few], centroids, _FIRST)
        centroids = _settled(x, centroids, _LAST)
    else:
        centroids = _settled(x, centroids, _FIRST + _LAST)
    found[1:] = centroids.round().numpy()
    return np.ascontiguousarray(found.T)


def _different(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the numbers of rows of which no two are the same."""
    # By a random projection, since sorting whole rows takes as long as the clustering.
    projected = rows @ generator.normal(size=rows.shape[1]).astype(np.float32)
    return np.unique(projected, return_index=True)[1]


def _settled(x: Tensor, centroids: Tensor, steps: int) -> Tensor:
    """Returns the centroids after so many steps of Lloyd's algorithm, or fewer where one gains hardly anything."""
    lengths, before = x.square().sum(dim=1), float("inf")
    for _ in range(steps):
        nearness = torch.addmm(-centroids.square().sum(dim=1) / 2, x, centroids.T)
        best, labels = nearness.max(dim=1)
        away = lengths - 2 * best
        objective = float(away.sum())
        if objective > before * (1 - _SETTLED):
            break
        before, centroids = objective, _means(x, labels, away, len(centroids))
    return centroids


def _means(x: Tensor, labels: Tensor, away: Tensor, k: int) -> Tensor:
    """Returns the means (k, P) of the rows of each label; one without rows becomes a row that is far from its own."""
    counts = torch.bincount(labels, minlength=k)
    ones = np.ones(len(x), np.float32)
    member = sparse.csr_matrix((ones, (labels.numpy(), np.arange(len(x)))), shape=(k, len(x)))
    means = torch.from_numpy(member @ x.numpy()) / counts.clamp(min=1)[:, None]
    empty = (counts == 0).nonzero().flatten()
    if len(empty):
        means[empty] = x[away.topk(len(empty)).indices]
    return means


def _read_state(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
