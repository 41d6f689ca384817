"""Drawings and label maps as they travel: runs of one class, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoo.serve.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence


def unpacked(runs: Sequence[int], size: Sequence[int], grid: tuple[int, int], classes: int) -> np.ndarray:
    """Returns labels (H, W) int64, -1 where nothing is drawn, of `runs`: class, count, class, count, …, row by row.

    Raises Refused where `size` isn't that of the index' maps, or the runs don't fill it with classes that exist.
    """
    if tuple(size) != grid:
        raise Refused(400, "drawing.size", f"be {list(grid)}, the index' maps as [height, width]", list(size))
    if len(runs) % 2:
        raise Refused(400, "drawing.runs", "be pairs of class and count", f"{len(runs)} numbers")
    try:
        pairs = np.array(runs, np.int64).reshape(-1, 2)
    except OverflowError:
        raise Refused(400, "drawing.runs", "hold numbers of at most 64 bits", "larger ones") from None
    names, counts = pairs[:, 0], pairs[:, 1]
    if len(pairs) and (names.min() < -1 or names.max() >= classes):
        raise Refused(400, "drawing.runs", f"hold classes -1 … {classes - 1}", f"{names.min()} … {names.max()}")
    cells = grid[0] * grid[1]
    # Each count is bounded before they are added up: a sum of huge ones could wrap round.
    if (len(pairs) and (counts.min() < 1 or counts.max() > cells)) or int(counts.sum()) != cells:
        raise Refused(400, "drawing.runs", f"have counts of at least 1 that add up to {cells}", counts.tolist())
    return np.repeat(names, counts).reshape(grid)


def packed(labels: np.ndarray) -> list[int]:
    """Returns the runs of `labels (H, W)`, which `unpacked` reads."""
    flat = labels.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 1)) if flat.size else np.empty(0, np.int64)
    counts = np.diff(starts, append=flat.size)
    return np.stack([flat[starts], counts], axis=1).ravel().tolist()
