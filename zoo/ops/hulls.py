"""Convex outlines of clusters of points, and the cells of a map inside them."""

from __future__ import annotations

import numpy as np

_TOLERANCE = 1e-6  # px²; a centre on a side stays inside whatever the rounding


def convex_hull(points: np.ndarray) -> np.ndarray:
    """Return the corners (V, 2) of the convex hull of `points` (N, 2), both x, y in float64.

    They run from the leftmost (of several, that of the smallest y), clockwise on the screen, where y grows downwards.
    Points on a side are no corners. Points on one line give its two ends, equal points one corner, none no corner.

    Source: Andrew 1979, "Another efficient algorithm for convex hulls in two dimensions".
    """
    ordered = np.unique(np.asarray(points, np.float64).reshape(-1, 2), axis=0)
    if len(ordered) < 3:
        return ordered
    lower, upper = _chain(ordered.tolist()), _chain(ordered[::-1].tolist())
    return np.array(lower[:-1] + upper[:-1])


def _chain(points: list[list[float]]) -> list[list[float]]:
    chain: list[list[float]] = []
    for x, y in points:
        while len(chain) > 1 and _turn(*chain[-2], *chain[-1], x, y) <= 0:
            chain.pop()
        chain.append([x, y])
    return chain


def _turn(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> float:
    return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)


def power_set_hulls(points: np.ndarray, labels: np.ndarray, clusters: int) -> list[np.ndarray]:
    """Return the convex hulls of the points (N, 2) of every set of clusters but the empty one: 2^clusters - 1 hulls.

    Set number m, counted from 1, holds the clusters whose bits are set in m. Corners as in `convex_hull`.
    Source: Sec. 2 of Jeong et al. 2017, "Regional deep feature aggregation for image retrieval".
    """
    single = [convex_hull(points[labels == cluster]) for cluster in range(clusters)]
    # The hull of a union is the hull of the hulls' corners, of which there are few.
    members = ([single[bit] for bit in range(clusters) if number >> bit & 1] for number in range(1, 2**clusters))
    return [hulls[0] if len(hulls) == 1 else convex_hull(np.concatenate(hulls)) for hulls in members]


def covered_cells(hull: np.ndarray, cells: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return which cells (H, W) of a map have their centre inside a convex hull or on its border.

    `hull` (V, 2) holds corners in px of an image of `size` (height, width); the map of `cells` (H, W) covers the image.
    A hull of fewer than three corners covers none.
    """
    if len(hull) < 3:
        return np.zeros(cells, bool)
    y, x = ((np.arange(count) + 0.5) * side / count for count, side in zip(cells, size, strict=True))
    following = np.roll(hull, -1, axis=0)
    edges = np.concatenate([hull, following - hull], axis=1)
    inside = np.ones(cells, bool)
    for left, top, across, down in edges.tolist():
        inside &= across * (y[:, None] - top) - down * (x[None] - left) >= -_TOLERANCE
    return inside


def simplified(hull: np.ndarray, corners: int) -> np.ndarray:
    """Return `hull` (V, 2) with at most `corners` corners, at least 3: those whose loss costs least area go first."""
    kept = hull
    while len(kept) > corners:
        before, after = np.roll(kept, 1, axis=0), np.roll(kept, -1, axis=0)
        lost = np.abs(_turn(*before.T, *kept.T, *after.T))
        kept = np.delete(kept, lost.argmin(), axis=0)
    return kept
