"""Geometric verification on local features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from zoo.checks import check_integers, check_positive
from zoo.search.geometry import TRANSFORMS, corners, find_object, match_keypoints, opencv, outline_of, project
from zoo.search.reranking import HitReranker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.search.reranking import Evidence
    from zoo.types import Representation


class GeometricVerification(HitReranker):
    """Scores a hit by the number of matched keypoints that one transform from the query explains.

    Hits with fewer than `min_inliers` score 0 and keep their order behind the others. Evidence: `inliers` and `matches`
    (numbers), and of a verified hit `points` (x, y in the query, x, y in the hit) of the inliers, `query_box` and where
    that is found: `hull` (four corners) and `box` around it. The query's box is `box` of its metadata (x0, y0, x1, y1),
    else its whole image (`width`, `height`), else the extent of its keypoints; `box` is cut to the hit's `width` and
    `height`. All px are those of the keypoints; the threshold grows with the hit's longest side, so that the size in
    which keypoints are stored doesn't matter. `conf/reranker/geometric_verification.yaml` explains the parameters.
    """

    needs: ClassVar[tuple[str, ...]] = ("keypoints", "keypoint_descriptors", "keypoint_mask")

    def __init__(
        self, *, transform: str, ratio: float, threshold: float, min_inliers: int, iterations: int, seed: int
    ) -> None:
        opencv("geometric verification")
        if transform not in TRANSFORMS:
            raise ValueError(f"transform must be one of {', '.join(TRANSFORMS)}, got {transform!r}")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1, got {ratio}")
        check_positive(threshold=threshold)
        check_integers(1, min_inliers=min_inliers, iterations=iterations)
        self.ratio, self.min_inliers = ratio, min_inliers
        self.threshold = threshold
        self.search = {"transform": transform, "iterations": iterations, "seed": seed}

    def score(
        self,
        query: Representation,
        hits: Representation,
        query_metadata: Mapping[str, Any],
        hit_metadata: Sequence[Mapping[str, Any]],
    ) -> tuple[Tensor, Evidence | None]:
        """Returns numbers of inliers, and what they show."""
        own = _existing(query, 0)
        box = _query_box(query_metadata, own[0])
        evidence = [self._verify(own, _existing(hits, hit), box, hit_metadata[hit]) for hit in range(len(hits))]
        counts = [shown["inliers"] if "box" in shown else 0 for shown in evidence]
        return torch.tensor(counts, dtype=torch.float64), evidence

    def _verify(
        self,
        query: tuple[np.ndarray, Tensor],
        hit: tuple[np.ndarray, Tensor],
        box: tuple[float, ...],
        metadata: Mapping[str, Any],
    ) -> dict[str, Any]:
        pairs = match_keypoints(query[1], hit[1], self.ratio).numpy()
        own, other = query[0][pairs[:, 0]], hit[0][pairs[:, 1]]
        found = find_object(own, other, threshold=self.threshold * _longest_side(metadata, hit[0]), **self.search)
        shown: dict[str, Any] = {"inliers": found.count, "matches": len(pairs)}
        if found.matrix is None or found.count < self.min_inliers:
            return shown
        hull = project(corners(box), found.matrix)
        if hull is None:  # the box reaches beyond the horizon of what was found
            hull = outline_of(other[found.inliers])
        points = np.concatenate([own, other], axis=1)[found.inliers].tolist()
        inside = _cut(hull, metadata)
        return {**shown, "points": points, "query_box": list(map(float, box)), "hull": hull.tolist(), "box": inside}


def _existing(items: Representation, row: int) -> tuple[np.ndarray, Tensor]:
    mask = items.keypoint_mask[row].bool()
    return items.keypoints[row][mask].double().cpu().numpy(), items.keypoint_descriptors[row][mask]


def _longest_side(metadata: Mapping[str, Any], keypoints: np.ndarray) -> float:
    if "width" in metadata and "height" in metadata:
        return max(metadata["width"], metadata["height"])
    return float(np.ptp(keypoints, axis=0).max()) if len(keypoints) else 1.0


def _query_box(metadata: Mapping[str, Any], keypoints: np.ndarray) -> tuple[float, ...]:
    if metadata.get("box") is not None:
        return tuple(metadata["box"])
    if "width" in metadata and "height" in metadata:
        return 0, 0, metadata["width"], metadata["height"]
    return (*keypoints.min(axis=0), *keypoints.max(axis=0)) if len(keypoints) else (0, 0, 0, 0)


def _cut(hull: np.ndarray, metadata: Mapping[str, Any]) -> list[float]:
    low, high = hull.min(axis=0), hull.max(axis=0)
    if "width" in metadata and "height" in metadata:
        size = np.array([metadata["width"], metadata["height"]])
        low, high = low.clip(0, size), high.clip(0, size)
    return [*low.tolist(), *high.tolist()]


export = GeometricVerification
