"""Geometric verification: matches of local features, the transform that most of them agree on, the object's outline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.registry import UsageError

if TYPE_CHECKING:
    from torch import Tensor

TRANSFORMS = {"homography": 4, "affine": 3}  # pairs of points that determine it


@dataclass(frozen=True)
class FoundObject:
    """What a transform from query to hit explains: `inliers (P,)` bool, `matrix (3, 3)` of homogeneous px, or None."""

    inliers: np.ndarray
    matrix: np.ndarray | None

    @property
    def count(self) -> int:
        """Returns the number of inliers."""
        return int(self.inliers.sum())


def opencv(user: str) -> Any:
    """Returns OpenCV's module; raises UsageError, naming the extra, where it isn't installed."""
    try:
        import cv2
    except ImportError as error:
        raise UsageError(f"{user} needs OpenCV: pip install 'spatial-zoo[geometry]' ({error})") from error
    return cv2


def match_keypoints(query: Tensor, hit: Tensor, ratio: float) -> Tensor:
    """Returns matches (P, 2) int64, pairs of positions in `query (N, D)` and `hit (M, D)`.

    Two descriptors match if each is the other's nearest (Euclidean) and their distance is less than `ratio` times that
    of the query's to its second nearest in the hit (Lowe 2004 takes 0.8; 1 only refuses equal ones). Raises ValueError
    for a ratio outside (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, got {ratio}")
    if not len(query) or not len(hit):
        return torch.empty(0, 2, dtype=torch.int64)
    squared = query.square().sum(1)[:, None] + hit.square().sum(1) - 2 * query @ hit.T
    distances, nearest = squared.clamp(min=0).topk(min(2, len(hit)), dim=1, largest=False)
    mutual = squared.argmin(dim=0)[nearest[:, 0]] == torch.arange(len(query), device=query.device)
    distinct = distances[:, 0] < ratio**2 * distances[:, -1] if len(hit) > 1 else torch.ones_like(mutual)
    chosen = (mutual & distinct).nonzero().squeeze(1)
    return torch.stack([chosen, nearest[chosen, 0]], dim=1).cpu()


def find_object(
    query: np.ndarray,
    hit: np.ndarray,
    transform: str,
    threshold: float,
    iterations: int,
    seed: int,
) -> FoundObject:
    """Returns the transform from query to hit that most pairs of points agree on, by locally optimised RANSAC.

    `query (P, 2)` and `hit (P, 2)` are matched points in px; `transform` is homography or affine; a pair agrees within
    `threshold` px of the hit; at most `iterations` samples are tried, drawn from `seed`. There is no transform where
    too few pairs agree, or where it would mirror the object or turn it beyond its edge, which no camera does. OpenCV's
    USAC (Barath and Matas 2018). Raises UsageError without OpenCV.
    """
    if transform not in TRANSFORMS:
        raise ValueError(f"transform must be one of {', '.join(TRANSFORMS)}, got {transform!r}")
    nothing = FoundObject(np.zeros(len(query), bool), None)
    if len(query) < TRANSFORMS[transform]:
        return nothing
    cv2 = opencv("geometric verification")
    query, hit = (np.ascontiguousarray(points, np.float32) for points in (query, hit))
    fit = cv2.findHomography if transform == "homography" else cv2.estimateAffine2D
    try:
        matrix, mask = fit(query, hit, _parameters(cv2, threshold, iterations, seed))
    except cv2.error:  # points that all lie on a line, or on one place
        return nothing
    if matrix is None or mask is None or not np.isfinite(matrix).all():
        return nothing
    found = FoundObject(mask.reshape(-1).astype(bool), np.eye(3))
    found.matrix[: len(matrix)] = matrix
    enough = found.count >= TRANSFORMS[transform]
    return found if enough and project(outline_of(query[found.inliers]), found.matrix) is not None else nothing


def _parameters(cv2: Any, threshold: float, iterations: int, seed: int) -> Any:
    parameters = cv2.UsacParams()
    parameters.threshold, parameters.maxIterations, parameters.randomGeneratorState = threshold, iterations, seed
    parameters.confidence = 0.9999
    parameters.score, parameters.loMethod = cv2.SCORE_METHOD_MSAC, cv2.LOCAL_OPTIM_INNER_LO
    return parameters


def outline_of(points: np.ndarray) -> np.ndarray:
    """Returns the corners (4, 2) of the smallest upright box around points (P, 2), clockwise on the screen."""
    return corners((*points.min(axis=0), *points.max(axis=0)))


def corners(box: tuple[float, ...]) -> np.ndarray:
    """Returns the corners (4, 2) of a box x0, y0, x1, y1, clockwise on the screen from the upper left."""
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def project(outline: np.ndarray, matrix: np.ndarray) -> np.ndarray | None:
    """Returns an outline (V, 2) in the hit, or None where it is mirrored, crosses itself or lies beyond the horizon."""
    points = np.c_[outline, np.ones(len(outline))] @ matrix.T
    if (points[:, 2] <= 0).any():
        return None
    points = points[:, :2] / points[:, 2:]
    edges = np.roll(points, -1, axis=0) - points
    following = np.roll(edges, -1, axis=0)
    turns = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]
    return points if (turns > 0).all() else None
