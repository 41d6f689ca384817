"""Candidate regions: salient points, their clusters, and the convex hulls of all sets of clusters (Sec. 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops.clustering import global_kmeans
from zoo.ops.hulls import covered_cells, power_set_hulls, simplified
from zoo.ops.salient import hessian_points

if TYPE_CHECKING:
    from collections.abc import Sequence

CORNERS = 32  # of an outline that is shown; cells are counted with all corners


class Regions(NamedTuple):
    """`cells (B, R, H, W)` bool, `exists (B, R)` bool, `boxes (B, R, 4)` and `hulls (B, R, V, 2)` px, as in zoo.types.

    Region 0 is the whole image; one that doesn't exist repeats it.
    """

    cells: Tensor
    exists: Tensor
    boxes: Tensor
    hulls: Tensor

    @classmethod
    def whole(cls, batch: int, cells: Sequence[int], size: Sequence[int], device: torch.device) -> Regions:
        """Returns one region an image: all of it."""
        height, width = size
        return cls(
            torch.ones(batch, 1, *cells, dtype=torch.bool, device=device),
            torch.ones(batch, 1, dtype=torch.bool, device=device),
            torch.tensor([0.0, 0.0, width, height], device=device).expand(batch, 1, 4),
            torch.from_numpy(_outline(_border(height, width))).to(device).expand(batch, 1, CORNERS, 2),
        )


def salient_points(
    images: Tensor, alpha: Tensor, detector: dict[str, float] | None, most: int, fewest: int, share: float
) -> list[np.ndarray]:
    """Returns the salient points (N, 2) of each image, x and y in px, float64.

    Points of `hessian_points`, called with `detector`, at most the `most` of them where `alpha (B, H, W)`, read
    bilinearly, is largest. Where there are fewer than `fewest`, or no detector: the centres of the `fewest` cells with
    the largest `alpha`, of small maps the `share` of all; cells without activation aren't salient. Equal values keep
    their order.
    """
    blobs = [None] * len(images) if detector is None else hessian_points(images, **detector)
    size, cells = images.shape[2:], min(fewest, max(1, int(share * alpha[0].numel())))
    found = []
    for weights, points in zip(alpha, blobs, strict=True):
        enough = points is not None and len(points) >= fewest
        kept = _strongest(points[:, :2], weights, size, most) if enough else _active_cells(weights, size, cells)
        found.append(kept.double().cpu().numpy())
    return found


def _strongest(points: Tensor, weights: Tensor, size: Sequence[int], most: int) -> Tensor:
    if len(points) <= most:
        return points
    places = points * 2 / points.new_tensor([size[1], size[0]]) - 1
    values = F.grid_sample(weights[None, None], places[None, None], padding_mode="border", align_corners=False)
    return points[values.flatten().argsort(descending=True, stable=True)[:most]]


def _active_cells(weights: Tensor, size: Sequence[int], count: int) -> Tensor:
    height, width = weights.shape
    best = weights.flatten().argsort(descending=True, stable=True)[:count]
    best = best[weights.flatten()[best] > 0]
    rows, columns = best // width, best % width
    return torch.stack([(columns + 0.5) * size[1] / width, (rows + 0.5) * size[0] / height], dim=1)


def propose(points: Sequence[np.ndarray], cells: Sequence[int], size: Sequence[int], clusters: int) -> Regions:
    """Returns the candidate regions of images of one `size` (height, width): 2^clusters a image.

    `points` holds the salient points (N, 2) of each image, `cells` is (H, W) of the map. A hull that covers the centre
    of no cell is discarded.
    """
    made = [_propose_one(each, tuple(cells), tuple(size), clusters) for each in points]
    return Regions(*(torch.from_numpy(np.stack(parts)) for parts in zip(*made, strict=True)))


def _propose_one(points: np.ndarray, cells: tuple[int, int], size: tuple[int, int], clusters: int) -> tuple:
    labels, centres = global_kmeans(torch.from_numpy(points), clusters)
    hulls = power_set_hulls(points, labels.numpy(), len(centres))
    count = 2**clusters
    covered, exists = np.ones((count, *cells), bool), np.zeros(count, bool)
    outlines = np.repeat(_outline(_border(*size))[None], count, axis=0)
    exists[0] = True
    boxes = np.tile(np.array([0, 0, size[1], size[0]], np.float32), (count, 1))
    for number, hull in enumerate(hulls, 1):
        inside = covered_cells(hull, cells, size)
        if inside.any():
            covered[number], exists[number], outlines[number] = inside, True, _outline(hull)
            boxes[number] = *hull.min(0), *hull.max(0)
    return covered, exists, boxes, outlines


def _border(height: int, width: int) -> np.ndarray:
    return np.array([[0, 0], [width, 0], [width, height], [0, height]])


def _outline(hull: np.ndarray) -> np.ndarray:
    kept = simplified(hull, CORNERS).astype(np.float32)
    return np.concatenate([kept, np.repeat(kept[-1:], CORNERS - len(kept), axis=0)])
