"""Exact search by vectors; local maps beside them, as product-quantised codes on disk, for re-rankers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch

from zoo.checks import check_integers
from zoo.search import storage
from zoo.search.indexes.flat import FlatIndex
from zoo.search.local_maps import CODEBOOK, encoded
from zoo.search.quantizer import ProductQuantizer, check_parts
from zoo.search.rows import Growing
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

_IMAGES = 64  # whose maps are encoded, or whose codes are written, at a time


class _Rows(NamedTuple):
    """Vectors (B, D), and of items their local maps (B, D', H, W), or codes (B, H, W, M) of a quantiser."""

    vectors: np.ndarray
    maps: Tensor | None = None
    codes: np.ndarray | None = None
    quantizer: ProductQuantizer | None = None


class LocalMapsIndex(FlatIndex):
    """Compares vectors exactly, as `flat` does, and keeps each item's local map as codes of `subquantizers` bytes.

    An item takes H * W * `subquantizers` bytes: 28.8 KB at 15 x 15 and 128, as in Sec. 4.4 of Chen et al. 2019. `get`
    returns `local_codes` with their `quantizer`, not decoded; what was saved or opened is mapped from its files and
    read where it is asked for. The quantiser, with `centroids` a part, is learnt from `train_size` locations, drawn by
    `seed` from the sample that `train` is given, else from the first items that are added.
    """

    needs: ClassVar[tuple[str, ...]] = ("vector", "local_map")
    tiny: ClassVar[Mapping[str, Any]] = {"subquantizers": 4, "centroids": 16}
    largest_block: ClassVar[int] = 256  # a map of 2,048 channels is 1.8 MB
    snapshot_format: ClassVar[str] = "safetensors"

    def __init__(self, *, subquantizers: int, centroids: int, train_size: int, seed: int, metric: str) -> None:
        super().__init__(metric=metric)
        check_integers(1, subquantizers=subquantizers, centroids=centroids, train_size=train_size)
        if centroids > 256:
            raise ValueError(f"centroids must be at most 256, so that a code is a byte, got {centroids}")
        self.subquantizers, self.centroids, self.train_size, self.seed = subquantizers, centroids, train_size, seed
        self.quantizer: ProductQuantizer | None = None
        self._codes = _Segments()

    def sample_size(self, one: Representation) -> int:
        """Returns how many items have `train_size` locations."""
        if self.quantizer is not None or one.local_map is None:
            return 0
        return math.ceil(self.train_size / one.local_map[0, 0].numel())

    def train(self, items: Representation) -> None:
        """Learns the quantiser from `train_size` random locations of the items."""
        if self.quantizer is not None:
            raise ValueError("the index has its quantiser already, train must come before the first items")
        self._learn(self._checked_maps(items, "items"))

    def prepare(self, items: Representation, what: str) -> _Rows:
        """Returns vectors, and of items what the codes are made of; raises ValueError for another D, H or W."""
        vectors = super().prepare(items, what)
        if what == "queries":
            return _Rows(vectors)
        if items.local_map is None:
            self._check_codes(items)
            return _Rows(vectors, codes=items.local_codes.cpu().numpy(), quantizer=items.quantizer)
        maps = self._checked_maps(items, what)
        self._codes.check(tuple(maps.shape[2:]), what)
        return _Rows(vectors, maps=maps)

    def append(self, rows: _Rows) -> None:
        """Adds vectors and codes; learns the quantiser first where there is none."""
        if rows.codes is not None:
            self.quantizer = rows.quantizer
            self._codes.append(rows.codes)
        else:
            if self.quantizer is None:
                self._learn(rows.maps)
            codes = [encoded(part, self.quantizer) for part in rows.maps.split(_IMAGES)]
            self._codes.append(torch.cat(codes).numpy())
        super().append(rows.vectors)

    def keep(self, mask: np.ndarray) -> None:
        """Drops vectors and codes; the files stay as they are."""
        super().keep(mask)
        self._codes.keep(mask)

    def nearest(self, queries: _Rows, k: int, allowed: np.ndarray | None) -> Any:
        """Returns the nearest vectors."""
        return super().nearest(queries.vectors, k, allowed)

    def take(self, positions: np.ndarray) -> Representation:
        """Returns vectors, and codes with their quantiser."""
        stored = super().take(positions)
        if not len(self._codes):
            return stored
        codes = torch.from_numpy(self._codes.at(positions))
        return replace(stored, local_codes=codes, quantizer=self.quantizer)

    def segment(self, start: int) -> dict[str, np.ndarray | storage.Pieces]:
        """Returns the vectors and codes from `start` on."""
        return {**super().segment(start), "codes": self._codes.since(start)}

    def extend(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes the rows of a segment; codes stay on disk until they are asked for."""
        codes = arrays["codes"]
        if codes.dtype != np.uint8 or codes.ndim != 4 or len(codes) != len(arrays["vector"]):
            raise ValueError(f"its codes are {codes.dtype} {codes.shape}")
        super().append(arrays["vector"])
        self._codes.append(codes)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns the quantiser, once there is one."""
        if self.quantizer is None:
            return {}
        return {CODEBOOK: np.frombuffer(self.quantizer.to_bytes(), np.uint8)}

    def restore_snapshot(self, content: Mapping[str, np.ndarray]) -> None:
        """Takes the quantiser; raises ValueError where the codes aren't its."""
        if content:
            self.quantizer = ProductQuantizer.from_bytes(content[CODEBOOK].tobytes(), "its quantizer")
        if len(self._codes) and (self.quantizer is None or self._codes.shape[2] != self.quantizer.parts):
            raise ValueError(f"its codes are {self._codes.shape}, its quantizer {self.quantizer}")

    def written(self, files: Sequence[Mapping[str, Path]], removed: np.ndarray) -> None:
        """Lets go of codes in memory, and of files that a commit has replaced, for those that are the index now."""
        self._codes.move([np.load(file["codes"], mmap_mode="r", allow_pickle=False) for file in files], removed)

    def _checked_maps(self, items: Representation, what: str) -> Tensor:
        maps = items.local_map
        if maps is None or maps.dim() != 4:
            got = None if maps is None else tuple(maps.shape)
            raise ValueError(f"the local maps of {what} must be (B, D, H, W), got {got}")
        maps = maps.detach().cpu().float()
        if not all(part.isfinite().all() for part in maps.split(_IMAGES)):
            raise ValueError(f"the local maps of {what} must be finite, got NaN or infinite values")
        if self.quantizer is None:
            check_parts(self.subquantizers, maps.shape[1], "subquantizers")
        elif maps.shape[1] != self.quantizer.dimension:
            there = self.quantizer.dimension
            raise ValueError(f"the local maps of {what} must have the D = {there} of the index, got {maps.shape[1]}")
        return maps

    def _check_codes(self, items: Representation) -> None:
        """Raises ValueError for codes that aren't of this index' quantiser, nor of one as it would have learnt."""
        given, wanted = items.quantizer, (self.subquantizers, self.centroids)
        fits = isinstance(given, ProductQuantizer) and (given.parts, given.count) == wanted
        if not fits or self.quantizer not in (None, given):
            mine = self.quantizer or f"M={wanted[0]}, K={wanted[1]}"
            raise ValueError(f"local_codes must be of the index' quantizer ({mine}), got those of {given!r}")
        codes = items.local_codes
        if codes.dtype != torch.uint8 or codes.dim() != 4 or codes.shape[3] != given.parts:
            raise ValueError(f"local_codes must be (B, H, W, {given.parts}) uint8, got {tuple(codes.shape)}")
        self._codes.check(tuple(codes.shape[1:3]), "items")

    def _learn(self, maps: Tensor) -> None:
        """Takes as many random locations of one image as of another, but for a rest."""
        count, places = len(maps), maps[0, 0].numel()
        drawn = np.random.default_rng(self.seed).permuted(np.tile(np.arange(places), (count, 1)), axis=1)
        order, images = np.divmod(np.arange(min(count * places, self.train_size)), count)
        chosen = torch.from_numpy(images), slice(None), torch.from_numpy(drawn[images, order])
        self.quantizer = ProductQuantizer.fit(maps.flatten(2)[chosen], self.subquantizers, self.centroids, self.seed)


class _Segments:
    """Codes (N, H, W, M) in several arrays, some of them mapped files: row i is row `rows[i]` of all of them."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self._rows = Growing(np.int64)

    def __len__(self) -> int:
        return len(self._rows.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns (H, W, M)."""
        return self.arrays[0].shape[1:]

    def check(self, grid: tuple[int, ...], what: str) -> None:
        """Raises ValueError for maps of another height or width than those that are there."""
        if self.arrays and self.shape[:2] != grid:
            raise ValueError(f"the local maps of {what} must be {self.shape[:2]} as in the index, got {grid}")

    def append(self, codes: np.ndarray) -> None:
        if self.arrays and codes.shape[1:] != self.shape:
            raise ValueError(f"codes must be {self.shape} as in the index, got {codes.shape[1:]}")
        end = sum(map(len, self.arrays))
        self.arrays.append(codes)
        self._rows.append(np.arange(end, end + len(codes)))

    def keep(self, mask: np.ndarray) -> None:
        self._rows.keep(mask)

    def move(self, arrays: Sequence[np.ndarray], removed: np.ndarray) -> None:
        self.arrays, self._rows = list(arrays), Growing(np.int64)
        self._rows.append(np.delete(np.arange(sum(map(len, arrays))), removed))

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Returns the codes at `positions`, read in the order in which the files hold them."""
        taken = np.empty((len(positions), *self.shape), np.uint8)
        rows, start = self._rows.rows[positions], 0
        for array in self.arrays:
            mine = np.flatnonzero((rows >= start) & (rows < start + len(array)))
            mine = mine[rows[mine].argsort(kind="stable")]
            taken[mine] = array[rows[mine] - start]
            start += len(array)
        return taken

    def since(self, start: int) -> storage.Pieces:
        return storage.Pieces((len(self) - start, *self.shape), np.dtype(np.uint8), self._pieces(start))

    def _pieces(self, start: int) -> Iterator[np.ndarray]:
        for first in range(start, len(self), _IMAGES):
            yield self.at(np.arange(first, min(first + _IMAGES, len(self))))


export = LocalMapsIndex
