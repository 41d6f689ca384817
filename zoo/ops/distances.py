"""Distances between sets of descriptors."""

from __future__ import annotations

import torch
from torch import Tensor

_GALLERY_BLOCK = 2048  # rows converted to float64 at a time: raw pixels of a whole gallery would take gigabytes


def l2_distances(queries: Tensor, gallery: Tensor) -> Tensor:
    """Returns Euclidean distances (Q, N) in float64 between `queries (Q, D)` and `gallery (N, D)` of any number type.

    Short descriptors are compared by their differences, so that equal descriptors give exactly equal distances; long ones
    (raw pixels) through products in float64, where integers stay exact.
    """
    mode = "use_mm_for_euclid_dist" if queries.shape[1] > 1024 else "donot_use_mm_for_euclid_dist"
    queries = queries.double()
    blocks = [torch.cdist(queries, rows.double(), compute_mode=mode) for rows in gallery.split(_GALLERY_BLOCK)]
    return torch.cat(blocks, dim=1) if blocks else queries.new_empty(len(queries), 0)
