"""Scene graphs from boxes: what is right of, below, inside and over what in a photo."""

from __future__ import annotations

import numpy as np

from zoo.truth.graphs import SceneGraph

BOX_RELATIONS = ("right", "below", "inside", "overlap")
RIGHT, BELOW, INSIDE, OVERLAP = range(4)


def box_graph(
    boxes: np.ndarray,
    categories: np.ndarray,
    aligned: float = 0.25,
    inside: float = 0.9,
    overlap: float = 0.1,
) -> SceneGraph:
    """Build the graph of O boxes: one attribute, the category, and four relations.

    boxes: (O, 4) x0, y0, x1, y1 in px, y down. categories: (O,) integers. An edge i→j reads "j is … of i":
    0 right: j's centre lies further right by more than `aligned` times the mean of both widths.
    1 below: likewise downwards, with heights. Left and above are these, turned, and not stored.
    2 inside: at least the share `inside` of j's area lies in i, and j is the smaller one.
    3 overlap: neither is inside the other, and they share at least `overlap` of the smaller one's area; symmetric,
    stored in both directions, so that its loss costs 2. The others are antisymmetric.
    Raises ValueError for boxes that are empty or not finite, shapes that disagree, or shares outside 0…1.
    """
    boxes, categories = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(categories).reshape(-1)
    if len(boxes) != len(categories):
        raise ValueError(f"categories must be (O,) for boxes (O, 4), got {len(categories)} and {len(boxes)}")
    bad = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1))
    if bad.any():
        raise ValueError(f"boxes must have x0 < x1 and y0 < y1, got {boxes[bad.argmax()].tolist()}")
    for name, share in (("inside", inside), ("overlap", overlap)):
        if not 0 < share <= 1:
            raise ValueError(f"{name} must lie in 0…1 and be above 0, got {share}")
    if not aligned >= 0:
        raise ValueError(f"aligned must be at least 0, got {aligned}")
    relations = np.stack([*_sides(boxes, aligned), *_nested(boxes, inside, overlap)])
    edges = np.argwhere(relations.transpose(1, 2, 0))
    return SceneGraph(
        categories[:, None].astype(np.int64), edges, antisymmetric=(RIGHT, BELOW, INSIDE), relations=len(BOX_RELATIONS)
    )


def _sides(boxes: np.ndarray, aligned: float) -> np.ndarray:
    """Right and below, (2, O, O)."""
    low, high = boxes[:, :2].T, boxes[:, 2:].T  # (2, O)
    # Twice the centre and twice the mean of two sides, which leaves out the halving on both sides of the comparison.
    centre, side = low + high, high - low
    return centre[:, None, :] - centre[:, :, None] > aligned * (side[:, None, :] + side[:, :, None])


def _nested(boxes: np.ndarray, inside: float, overlap: float) -> tuple[np.ndarray, np.ndarray]:
    """Inside and overlap, (O, O) each."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    within = (shared >= inside * area) & (area < area[:, None])
    over = (shared >= overlap * np.minimum(area, area[:, None])) & ~within & ~within.T
    np.fill_diagonal(over, False)
    return within, over
