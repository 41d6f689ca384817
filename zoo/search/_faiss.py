"""What the indexes on top of faiss share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.search.stored import Found

if TYPE_CHECKING:
    from collections.abc import Callable


def metric_type(metric: str) -> int:
    """Returns faiss' name of a metric; cosine is the inner product of normalised descriptors."""
    import faiss

    return faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT


def closed_search(search: Callable[[np.ndarray, int], tuple[Any, Any]], queries: np.ndarray, k: int, total: int) -> Any:
    """Returns distances and keys (Q, k) of `search(queries, k)`, in which of equal items the lower keys come first.

    faiss keeps any of the items that tie for the last place. So one more is asked for, and where it ties, more, until
    the last one is worse or there are no more.
    """
    distances, keys = _ordered(*search(queries, min(k + 1, total)))
    open_rows = np.flatnonzero(_tied_at(distances, keys, k))
    distances, keys = distances[:, :k], keys[:, :k]
    asked = k + 1
    while len(open_rows):
        asked = min(2 * asked, total)
        more, more_keys = search(queries[open_rows], asked)
        undecided = (more[:, -1] == more[:, k - 1]) & (more_keys[:, -1] >= 0) & (asked < total)
        more, more_keys = _ordered(more, more_keys)
        distances[open_rows], keys[open_rows] = more[:, :k], more_keys[:, :k]
        open_rows = open_rows[undecided]
    return distances, keys


def _tied_at(distances: np.ndarray, keys: np.ndarray, k: int) -> np.ndarray:
    if distances.shape[1] <= k:
        return np.zeros(len(distances), bool)
    return (distances[:, k] == distances[:, k - 1]) & (keys[:, k] >= 0)


def _ordered(distances: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orders equal distances by key; faiss returns them in any order."""
    equal = distances[:, 1:] == distances[:, :-1]
    if equal.any():
        for row in np.flatnonzero(equal.any(axis=1)):
            run = np.concatenate([[0], np.cumsum(~equal[row])])
            keys[row] = keys[row, np.lexsort((keys[row], run))]
    return distances, keys


def found(metric: str, distances: np.ndarray, positions: np.ndarray) -> Found:
    """Returns faiss' answer as scores, higher = nearer: for L2 the negative distance, not squared."""
    scores = -np.sqrt(np.maximum(distances, 0)) if metric == "l2" else distances
    return Found(np.ascontiguousarray(positions), np.ascontiguousarray(scores))
