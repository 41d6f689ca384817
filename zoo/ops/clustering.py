"""Deterministic clustering."""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS = 64  # candidates whose distances to all points are held at a time, so that they stay in the cache
_ROUNDS = 300


def global_kmeans(points: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Cluster points by k-means that begins with one cluster and adds one after the other; nothing is random.

    The next cluster begins at the point that promises the largest fall of the sum of squared distances (the fast
    variant), then all are moved by Lloyd's rounds. Where points tie, the first is taken.

    Args:
        points: (N, D).
        clusters: how many clusters, at least 1. Fewer come back where there are fewer distinct points.

    Returns:
        (N,) int64 cluster of each point; (clusters, D) float64 centres. Without points both are empty.

    Raises:
        ValueError: ``points`` has not two dimensions, or ``clusters`` is below 1.

    Source: Likas, Vlassis & Verbeek 2003, "The global k-means clustering algorithm", Sec. 3.1.
    """
    if points.dim() != 2:
        raise ValueError(f"points must be (N, D), got shape {tuple(points.shape)}")
    if clusters < 1:
        raise ValueError(f"clusters must be at least 1, got {clusters}")
    points = points.double()
    if not len(points):
        return torch.zeros(0, dtype=torch.int64, device=points.device), points
    centres = points.mean(0, keepdim=True)
    labels = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    while len(centres) < clusters:
        squared = (points - centres[labels]).square().sum(1)
        gains = _gains(points, squared)
        best = gains.argmax()
        if not gains[best] > 0:
            break
        labels, centres = _lloyd(points, torch.cat([centres, points[best, None]]))
    return labels, centres


def _gains(points: Tensor, squared: Tensor) -> Tensor:
    """Returns (N,): by how much a centre at each point lowers the sum of `squared` distances to the present centres."""
    gains = torch.empty_like(squared)
    for first in range(0, len(points), _ROWS):
        block = points[first : first + _ROWS]
        left = squared.expand(len(block), -1).clone()
        distances = torch.zeros_like(left)
        for own, others in zip(block.T, points.T, strict=True):
            distances += (own[:, None] - others).square_()
        gains[first : first + _ROWS] = left.sub_(distances).clamp_(min=0).sum(1)
    return gains


def _lloyd(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    labels = _nearest(points, centres)
    for _ in range(_ROUNDS):
        members = torch.nn.functional.one_hot(labels, len(centres)).to(points)
        counts = members.sum(0)[:, None]
        centres = torch.where(counts > 0, members.T @ points / counts.clamp(min=1), centres)
        moved = _nearest(points, centres)
        if torch.equal(moved, labels):
            break
        labels = moved
    return labels, centres


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    return (points[:, None] - centres).square().sum(2).argmin(1)
