"""Exact search by brute force, through faiss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from zoo.search import _faiss
from zoo.search.stored import Found, StoredIndex, check_metric, rows_of
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Mapping


class FlatIndex(StoredIndex):
    """Compares a query with every vector. `metric`: dot, cosine or l2 (scores are then negative distances).

    With cosine the vectors are L2-normalised when they are added, and `get` returns them so.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"metric": "dot"}

    def __init__(self, *, metric: str) -> None:
        super().__init__()
        check_metric(metric)
        self.metric = metric
        self._vectors: Any = None  # made with the first vectors, which tell the dimension

    def prepare(self, items: Representation, what: str) -> np.ndarray:
        """Returns the vectors (B, D); raises ValueError where there are none, or for another dimension."""
        items.require(("vector",), f"the index {type(self).__name__}")
        dimension = None if self._vectors is None else self._vectors.d
        return rows_of(items.vector, dimension, what, self.metric == "cosine")

    def append(self, rows: np.ndarray) -> None:
        """Adds vectors."""
        import faiss

        if self._vectors is None:
            self._vectors = faiss.IndexFlat(rows.shape[1], _faiss.metric_type(self.metric))
        self._vectors.add(rows)

    def keep(self, mask: np.ndarray) -> None:
        """Drops vectors; faiss moves the others up."""
        import faiss

        self._vectors.remove_ids(faiss.IDSelectorBitmap(_bits(~mask)))

    def nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Found:
        """Returns the nearest vectors."""
        import faiss

        chosen = None if allowed is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(_bits(allowed)))

        def search(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
            return self._vectors.search(rows, count, params=chosen)

        return _faiss.found(self.metric, *_faiss.closed_search(search, queries, k, self._vectors.ntotal))

    def take(self, positions: np.ndarray) -> Representation:
        """Returns vectors."""
        return Representation(vector=torch.from_numpy(self._rows()[positions]))

    def segment(self, start: int) -> dict[str, np.ndarray]:
        """Returns the vectors from `start` on."""
        return {"vector": self._rows()[start:]}

    def extend(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds the vectors of a segment."""
        self.append(arrays["vector"])

    def _rows(self) -> np.ndarray:
        """Returns faiss' own memory, which the next change may move."""
        import faiss

        if self._vectors is None:
            return np.empty((0, 0), np.float32)
        count, dimension = self._vectors.ntotal, self._vectors.d
        return faiss.rev_swig_ptr(self._vectors.get_xb(), count * dimension).reshape(count, dimension)


def _bits(mask: np.ndarray) -> np.ndarray:
    return np.packbits(mask, bitorder="little")


export = FlatIndex
