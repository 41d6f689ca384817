"""Approximate search in compressed vectors: inverted lists of product-quantised residuals, through faiss."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from zoo.checks import check_integers
from zoo.search import _faiss
from zoo.search.rows import Growing
from zoo.search.stored import Found, StoredIndex, check_metric, rows_of
from zoo.types import Representation

if TYPE_CHECKING:
    from collections.abc import Mapping


class IvfPqIndex(StoredIndex):
    """Compares a query with the codes of the vectors in the `probes` nearest of `lists` clusters.

    A vector takes `subquantizers` × `bits` bits (Jégou et al. 2011); `get` returns what they decode to. The index is
    trained on the first `train_size` vectors, or on those that are there when it is first searched or saved; until then
    it keeps them as they are. `seed` is that of the clustering.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"lists": 2, "subquantizers": 4, "bits": 4, "probes": 2, "metric": "l2"}

    def __init__(
        self, *, lists: int, subquantizers: int, bits: int, probes: int, train_size: int, seed: int, metric: str
    ) -> None:
        super().__init__()
        check_metric(metric)
        check_integers(1, lists=lists, subquantizers=subquantizers, bits=bits, probes=probes, train_size=train_size)
        if bits > 12:
            raise ValueError(f"bits must be from 1 to 12, got {bits}")
        self.lists, self.subquantizers, self.bits, self.probes = lists, subquantizers, bits, probes
        self.train_size, self.seed, self.metric = max(train_size, self._least), seed, metric
        self._waiting: Growing | None = None  # all vectors, until they are enough to train on
        self._codes: Any = None
        self._keys = Growing(np.int64)  # under which faiss knows the rows; increasing

    @property
    def _least(self) -> int:
        return max(self.lists, 1 << self.bits)

    @property
    def ready(self) -> bool:
        """Says whether it is trained; saving trains it on what there is."""
        return self._codes is not None

    def prepare(self, items: Representation, what: str) -> np.ndarray:
        """Returns the vectors (B, D); raises ValueError where subquantizers don't divide D, or for another D."""
        items.require(self.needs, f"the index {type(self).__name__}")
        dimension = self._waiting.rows.shape[1] if self._waiting else self._codes and self._codes.d
        rows = rows_of(items.vector, dimension, what, self.metric == "cosine")
        if rows.shape[1] % self.subquantizers:
            raise ValueError(f"subquantizers must divide the dimension {rows.shape[1]}, got {self.subquantizers}")
        return rows

    def append(self, rows: np.ndarray) -> None:
        """Encodes vectors, or keeps them to be trained on."""
        start = self._keys.rows[-1] + 1 if len(self._keys.rows) else 0
        keys = np.arange(start, start + len(rows))
        self._keys.append(keys)
        if self._codes is not None:
            self._codes.add_with_ids(rows, keys)
            return
        self._waiting = self._waiting or Growing(np.float32, rows.shape[1])
        self._waiting.append(rows)
        if len(self._waiting.rows) >= self.train_size:
            self._train()

    def keep(self, mask: np.ndarray) -> None:
        """Drops vectors or codes."""
        import faiss

        if self._codes is not None:
            self._codes.remove_ids(faiss.IDSelectorArray(self._keys.rows[~mask]))
        elif self._waiting is not None:
            self._waiting.keep(mask)
        self._keys.keep(mask)

    def nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Found:
        """Returns the nearest codes by asymmetric distance."""
        import faiss

        self._train()
        chosen = None if allowed is None else faiss.IDSelectorBatch(self._keys.rows[allowed])
        parameters = faiss.SearchParametersIVF(nprobe=min(self.probes, self.lists), sel=chosen)

        def search(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
            return self._codes.search(rows, count, params=parameters)

        distances, keys = _faiss.closed_search(search, queries, k, self._codes.ntotal)
        positions = np.where(keys < 0, -1, np.searchsorted(self._keys.rows, keys))
        return _faiss.found(self.metric, distances, positions)

    def take(self, positions: np.ndarray) -> Representation:
        """Returns decoded vectors, exact ones before training."""
        if self._codes is None:
            rows = self._waiting.rows[positions] if self._waiting else np.empty((0, 0), np.float32)
        else:
            rows = self._codes.reconstruct_batch(self._keys.rows[positions])
        return Representation(vector=torch.from_numpy(rows))

    def segment(self, start: int) -> dict[str, np.ndarray]:
        """Returns the keys from `start` on; the codes are in the snapshot."""
        return {"keys": self._keys.rows[start:]}

    def extend(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes the keys of a segment."""
        self._keys.append(arrays["keys"])

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns faiss' index with all codes; trains it first where that has not happened."""
        import faiss

        if not len(self):
            return {}
        self._train()
        return {"codes": faiss.serialize_index(self._codes)}

    def restore_snapshot(self, content: Mapping[str, np.ndarray]) -> None:
        """Takes faiss' index; raises ValueError where it isn't one of the kind, or of other rows."""
        import faiss

        if not content:
            return
        codes = faiss.deserialize_index(content["codes"])
        if not isinstance(codes, faiss.IndexIVFPQ) or codes.ntotal != len(self):
            raise ValueError(f"its codes are {type(codes).__name__} of {codes.ntotal} rows instead of {len(self)}")
        self._codes = codes

    def _train(self) -> None:
        import faiss

        if self._codes is not None:
            return
        rows = self._waiting.rows
        if len(rows) < self._least:
            raise ValueError(
                f"ivf_pq with lists={self.lists} and bits={self.bits} needs at least {self._least} vectors to be "
                f"trained on, the index has {len(rows)}: add more, lower lists and bits, or use the index flat"
            )
        kind = _faiss.metric_type(self.metric)
        quantizer = faiss.IndexFlat(rows.shape[1], kind)
        codes = faiss.IndexIVFPQ(quantizer, rows.shape[1], self.lists, self.subquantizers, self.bits, kind)
        for clustering in (codes.cp, codes.pq.cp):
            clustering.seed, clustering.min_points_per_centroid = self.seed, 1
        codes.train(rows)
        codes.set_direct_map_type(faiss.DirectMap.Hashtable)
        codes.add_with_ids(rows, self._keys.rows)
        self._codes, self._waiting = codes, None
        logging.getLogger(__name__).info("ivf_pq: trained on %d vectors, %d lists", len(rows), self.lists)


export = IvfPqIndex
