"""Ground truth in compressed rows: memory for what is listed only, masks and gains for any block of a score matrix.

Shapes: Q queries, N gallery items, K items of a shortlist, q rows asked for at once, M listed items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor


class _Rows:
    """Per query the gallery positions that are listed, ascending; `order` puts what came along with them in line."""

    def __init__(self, lists: Sequence[Sequence[int]], width: int) -> None:
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        items = np.fromiter(chain.from_iterable(lists), np.int64, int(lengths.sum()))
        if items.size and not 0 <= items.min() <= items.max() < width:
            raise ValueError(f"positions must lie in 0 … {width - 1}, got {items.min()} … {items.max()}")
        self.order = np.lexsort((items, np.repeat(np.arange(len(lists)), lengths)))
        self.items = items[self.order]
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.width = width

    def __len__(self) -> int:
        return len(self.starts) - 1

    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns for each item listed in `rows` its row there, and its place in `items`; both ascend row by row."""
        lengths = self.lengths()[rows]
        local = np.repeat(np.arange(len(rows)), lengths)
        within = np.arange(local.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return local, self.starts[rows][local] + within

    def find(self, rows: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns which of `wanted` (q, K) are listed in their row, and at which place of `items` those are."""
        local, places = self.take(rows)
        if not places.size:
            return np.zeros(wanted.shape, bool), places
        keys = local * self.width + self.items[places]
        keyed = np.arange(len(rows))[:, None] * self.width + wanted
        nearest = np.minimum(np.searchsorted(keys, keyed), len(keys) - 1)
        found = (keys[nearest] == keyed) & (wanted >= 0)
        return found, places[nearest[found]]


class PackedRelevance:
    """Named groups of gallery positions for Q queries and N gallery items, in memory of the order of what is listed.

    groups: group name → Q sequences of gallery positions. width: N. Raises ValueError where a position lies outside.
    """

    def __init__(self, groups: Mapping[str, Sequence[Sequence[int]]], width: int) -> None:
        self.width = width
        self._groups = {name: _Rows(lists, width) for name, lists in groups.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups."""
        return tuple(self._groups)

    def mask(self, names: Sequence[str], rows: Tensor | np.ndarray, items: Tensor | None = None) -> Tensor:
        """Tells which gallery items any of the groups `names` lists, for the queries at positions `rows` (q,).

        Without `items`: (q, N) bool. With `items` (q, K), gallery positions where -1 is padding: (q, K) bool, False
        at padding. The result is on the device of `items`, or else of `rows`. Raises ValueError for an unknown group,
        or a row or item that does not exist.
        """
        device = _device(rows, items)
        chosen = self._choose(names)
        queries = _positions("rows", rows, len(next(iter(self._groups.values()))))
        if items is None:
            mask = np.zeros((len(queries), self.width), bool)
            for group in chosen:
                local, places = group.take(queries)
                mask[local, group.items[places]] = True
        else:
            wanted = _shortlist(items, len(queries), self.width)
            mask = np.zeros(wanted.shape, bool)
            for group in chosen:
                mask |= group.find(queries, wanted)[0]
        return torch.from_numpy(mask).to(device)

    def count(self, names: Sequence[str]) -> Tensor:
        """Counts the items that the groups `names` list for each query, (Q,) int64; raises as `mask` does."""
        return torch.from_numpy(sum(group.lengths() for group in self._choose(names)))

    def _choose(self, names: Sequence[str]) -> list[_Rows]:
        unknown = [name for name in names if name not in self._groups]
        if unknown or not names:
            raise ValueError(f"names must be some of the groups {list(self._groups)}, got {list(names)}")
        return [self._groups[name] for name in dict.fromkeys(names)]


class PackedGains:
    """Graded gains for Q queries and N gallery items, in memory of the order of what is listed.

    lists: Q mappings of gallery position → gain. width: N. Raises ValueError where a position lies outside.
    """

    def __init__(self, lists: Sequence[Mapping[int, float]], width: int) -> None:
        self.width = width
        self._rows = _Rows(lists, width)
        values = chain.from_iterable(gains.values() for gains in lists)
        self._gains = np.fromiter(values, np.float64, len(self._rows.items))[self._rows.order]

    def gains(self, rows: Tensor | np.ndarray, items: Tensor | None = None) -> Tensor:
        """Looks up gains for the queries at positions `rows` (q,), 0 where nothing is listed.

        Without `items`: (q, N) float64. With `items` (q, K), gallery positions where -1 is padding: (q, K) float64,
        0 at padding. The result is on the device of `items`, or else of `rows`. Raises ValueError for a row or item
        that does not exist.
        """
        device = _device(rows, items)
        queries = _positions("rows", rows, len(self._rows))
        if items is None:
            gains = np.zeros((len(queries), self.width), np.float64)
            local, places = self._rows.take(queries)
            gains[local, self._rows.items[places]] = self._gains[places]
        else:
            wanted = _shortlist(items, len(queries), self.width)
            gains = np.zeros(wanted.shape, np.float64)
            found, places = self._rows.find(queries, wanted)
            gains[found] = self._gains[places]
        return torch.from_numpy(gains).to(device)

    def listed(self, rows: Tensor | np.ndarray, items: Tensor | None = None) -> Tensor:
        """Tells which gallery items are listed, with whatever gain; shapes, device and errors as for `gains`."""
        device = _device(rows, items)
        queries = _positions("rows", rows, len(self._rows))
        if items is not None:
            return torch.from_numpy(self._rows.find(queries, _shortlist(items, len(queries), self.width))[0]).to(device)
        mask = np.zeros((len(queries), self.width), bool)
        local, places = self._rows.take(queries)
        mask[local, self._rows.items[places]] = True
        return torch.from_numpy(mask).to(device)

    @property
    def longest(self) -> int:
        """The largest number of items that any query lists."""
        return int(self._rows.lengths().max(initial=0))

    def ideal(self, k: int) -> Tensor:
        """Returns the k largest gains of each query in falling order, (Q, k) float64, filled up with 0.

        Raises ValueError for k < 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        best = np.zeros((len(self._rows), k), np.float64)
        local, places = self._rows.take(np.arange(len(self._rows)))
        falling = self._gains[np.lexsort((-self._gains, local))]
        column = places - self._rows.starts[local]
        inside = column < k
        best[local[inside], column[inside]] = falling[inside]
        return torch.from_numpy(best)


def _device(rows: Tensor | np.ndarray, items: Tensor | None) -> torch.device:
    source = rows if items is None else items
    return source.device if isinstance(source, torch.Tensor) else torch.device("cpu")


def _positions(argument: str, values: Tensor | np.ndarray, count: int, least: int = 0) -> np.ndarray:
    """Copies integers to the CPU and checks that they are positions from `least` to below `count`."""
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{argument} must be integers, got {array.dtype}")
    array = array.astype(np.int64)
    if array.size and not least <= array.min() <= array.max() < count:
        raise ValueError(f"{argument} must lie in {least} … {count - 1}, got {array.min()} … {array.max()}")
    return array


def _shortlist(items: Tensor, rows: int, width: int) -> np.ndarray:
    if items.ndim != 2 or len(items) != rows:
        raise ValueError(f"items must have shape (q, K) with q = {rows} rows, got {tuple(items.shape)}")
    return _positions("items", items, width, least=-1)
