"""Search by the best pair of regions, exact or among a shortlist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from zoo.checks import check_integers
from zoo.search._coarse import CoarseRegions
from zoo.search._packed import Regions, RegionStore, evidence_of, pack_regions
from zoo.search.rows import aligned
from zoo.search.stored import Found, StoredIndex, check_metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoo.types import Representation

_ROWS = 4096  # regions compared at a time
_FEW = 16  # query regions up to which the compiled loop beats a matrix product
_CELLS = 1 << 26  # scores, of queries and images or of regions of a block, held at a time


class RegionsIndex(StoredIndex):
    """Scores an image by the largest similarity of any of its regions to any of the query's.

    That is the similarity of regional feature aggregation; one matrix product and a maximum over segments, in blocks.
    `metric`: dot or cosine, which L2-normalises regions when they are added. `shortlist`: None compares every image;
    n compares the n images that hold the nearest single regions, found in the `probes` nearest clusters of 8-bit codes.
    A query without regions is one region, its vector. Hits carry the best pair as evidence: the numbers of the regions
    `query_region` and `region`, and `query_box`, `box`, `query_hull`, `hull` where known, in pixels.
    """

    needs: ClassVar[tuple[str, ...]] = ("regions",)
    searched_by: ClassVar[tuple[str, ...]] = ("regions", "vector")
    tiny: ClassVar[Mapping[str, Any]] = {"metric": "dot"}

    def __init__(self, *, metric: str, shortlist: int | None, probes: int) -> None:
        super().__init__()
        check_metric(metric, ("dot", "cosine"))
        if shortlist is not None:
            check_integers(1, shortlist=shortlist)
        self.metric, self.shortlist = metric, shortlist
        self._store = RegionStore()
        self._coarse = CoarseRegions(probes)

    def prepare(self, items: Representation, what: str) -> Regions:
        """Returns the regions that exist, packed."""
        items.require(self.needs if items.vector is None or what == "items" else ("vector",), "the index regions")
        packed = pack_regions(items, self._store.dimension, what, self.metric == "cosine")
        if what == "items":
            self._store.check(packed, what)
        return packed

    def append(self, rows: Regions) -> None:
        """Adds images."""
        self._store.append(rows.arrays())

    def keep(self, mask: np.ndarray) -> None:
        """Drops images."""
        self._store.keep(mask)
        self._coarse.clear()

    def nearest(self, queries: Regions, k: int, allowed: np.ndarray | None) -> Found:
        """Returns the images with the best pairs of regions."""
        stored = self._store.packed
        if self.shortlist is None or max(self.shortlist, k) >= len(stored.counts):
            positions, scores = _exact(queries, stored, k, allowed)
        else:
            positions, scores = self._among_shortlists(queries, stored, k, allowed)
        return Found(positions, scores, _evidence(queries, stored, positions))

    def take(self, positions: np.ndarray) -> Representation:
        """Returns regions, padded, and region 0 as the vector."""
        return self._store.padded(positions)

    def segment(self, start: int) -> dict[str, np.ndarray]:
        """Returns the packed regions of the images from `start` on."""
        return self._store.since(start)

    def extend(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds the images of a segment."""
        self._store.append(arrays)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns the clusters and codes of the shortlist, if there is one."""
        if self.shortlist is None or not len(self):
            return {}
        return {"coarse": self._coarse.content(self._store.packed)}

    def restore_snapshot(self, content: Mapping[str, np.ndarray]) -> None:
        """Takes clusters and codes."""
        if content:
            self._coarse.restore(content["coarse"], self._store.packed)

    def _among_shortlists(
        self, queries: Regions, stored: Regions, k: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        positions = np.full((len(queries.counts), k), -1)
        scores = np.full(positions.shape, -np.inf, np.float32)
        wanted, starts = max(self.shortlist, k), queries.starts
        for query in range(len(positions)):
            own = queries.regions[starts[query] : starts[query + 1]]
            chosen = np.sort(self._coarse.images(own, stored, wanted, allowed))
            if not len(chosen):
                continue
            rows, counts = _rows_of(stored, chosen)
            best = (torch.from_numpy(own) @ torch.from_numpy(stored.regions[rows]).T).amax(dim=0).numpy()
            values = np.maximum.reduceat(best, np.cumsum(counts) - counts)
            order = _best(values, k)
            positions[query, : len(order)], scores[query, : len(order)] = chosen[order], values[order]
        return positions, scores


def _exact(queries: Regions, stored: Regions, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    images, starts = len(stored.counts), queries.starts
    positions, scores = np.full((len(queries.counts), k), -1), np.full((len(queries.counts), k), -np.inf, np.float32)
    regions = int(queries.counts.max(initial=1)) * min(_ROWS, len(stored.regions))
    at_once = max(1, _CELLS // max(images, regions))
    for first in range(0, len(positions), at_once):
        last = min(first + at_once, len(positions))
        own = torch.from_numpy(queries.regions[starts[first] : starts[last]])
        for query, values in enumerate(_best_pairs(own, starts[first:last] - starts[first], stored), first):
            if allowed is not None:
                values[~allowed] = -np.inf
            order = _best(values, k)
            positions[query], scores[query] = order, values[order]
    positions[scores == -np.inf] = -1
    return positions, scores


def _best_pairs(queries: torch.Tensor, starts: np.ndarray, stored: Regions) -> np.ndarray:
    """Returns (Q, N): the largest product of any region of a query with any of an image."""
    if len(queries) <= _FEW:
        parts = np.split(queries.numpy(), starts[1:])
        edges = stored.starts[:-1]
        return np.stack([np.maximum.reduceat(_row_maxima(part, stored.regions), edges) for part in parts])
    result = np.empty((len(starts), len(stored.counts)), np.float32)
    edges = stored.starts
    for first, last in _blocks(edges):
        block = torch.from_numpy(stored.regions[edges[first] : edges[last]])
        cells = (queries @ block.T).numpy()
        best = np.maximum.reduceat(cells, starts, axis=0) if len(starts) > 1 else cells.max(axis=0, keepdims=True)
        np.maximum.reduceat(best, edges[first:last] - edges[first], axis=1, out=result[:, first:last])
    return result


def _row_maxima(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns (T,): the largest product of each of `rows (T, D)` with any of a few `queries (R, D)`."""
    from zoo.search import kernels

    padded = aligned((-(-len(queries) // kernels.TILE) * kernels.TILE, queries.shape[1]), np.float32)
    padded[:] = queries[np.arange(len(padded)) % len(queries)]
    best, even = np.empty(len(rows), np.float32), len(rows) // 2 * 2
    kernels.row_maxima(padded, rows[:even], best[:even])
    if even < len(rows):
        kernels.row_maxima(padded, rows[[-1, -1]], last := np.empty(2, np.float32))
        best[-1] = last[0]
    return best


def _blocks(edges: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields ranges of images that hold some _ROWS regions."""
    first = 0
    while first < len(edges) - 1:
        last = max(first + 1, int(np.searchsorted(edges, edges[first] + _ROWS, side="right")) - 1)
        yield first, last
        first = last


def _best(values: np.ndarray, k: int) -> np.ndarray:
    """Returns the positions of the k largest, of equal ones the lower first."""
    if k < len(values):
        least = np.partition(values, len(values) - k)[len(values) - k]
        chosen = np.flatnonzero(values >= least)
    else:
        chosen = np.arange(len(values))
    return chosen[np.argsort(-values[chosen], kind="stable")][:k]


def _rows_of(stored: Regions, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the regions of images, and their numbers."""
    counts = stored.counts[images]
    ends = np.cumsum(counts)
    return np.arange(ends[-1]) + np.repeat(stored.starts[images] - (ends - counts), counts), counts


def _evidence(queries: Regions, stored: Regions, positions: np.ndarray) -> list[list[dict[str, Any]]]:
    starts, shown = queries.starts, []
    for query, row in enumerate(positions):
        hits = row[row >= 0]
        shown.append(_pairs_of(queries, slice(starts[query], starts[query + 1]), stored, hits) if len(hits) else [])
    return shown


def _pairs_of(queries: Regions, own: slice, stored: Regions, hits: np.ndarray) -> list[dict[str, Any]]:
    rows, counts = _rows_of(stored, hits)
    cells = (torch.from_numpy(queries.regions[own]) @ torch.from_numpy(stored.regions[rows]).T).numpy()
    ends = np.cumsum(counts)
    pairs = []
    for start, end in zip(ends - counts, ends, strict=True):
        query_row, column = np.unravel_index(cells[:, start:end].argmax(), (len(cells), end - start))
        pairs.append(evidence_of(queries, own.start + int(query_row), stored, rows[start + column], int(column)))
    return pairs


export = RegionsIndex
