"""Similarities of feature maps by the correspondence of their locations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def r_match(gallery: Tensor, query: Tensor) -> Tensor:
    """Returns (B,): each location of the query finds its best one in the gallery map, and these products are added up.

    `gallery (B, D, Hg, Wg)`, `query (B, D, Hq, Wq)`; locations are compared by their dot products as they are, so
    L2-normalise them first. Either may have B = 1. Raises ValueError for other dimensions D. Eq. 2 of Chen et al. 2019
    (Razavian et al. 2014); the order of the locations plays no part in it.
    """
    if gallery.dim() != 4 or query.dim() != 4 or gallery.shape[1] != query.shape[1]:
        shapes = f"{tuple(gallery.shape)} and {tuple(query.shape)}"
        raise ValueError(f"gallery (B, D, Hg, Wg) and query (B, D, Hq, Wq) must have the same D, got {shapes}")
    return best_products(gallery.flatten(2).mT, query.flatten(2).mT).sum(dim=1)


def best_products(gallery: Tensor, query: Tensor) -> Tensor:
    """Returns (B, R): for each of `query (B, R, D)` the largest dot product with any of `gallery (B, S, D)`."""
    if gallery.shape[0] != 1 and query.shape[0] == 1:  # one product of all, instead of one per image
        products = gallery.flatten(0, 1) @ query[0].mT
        return products.unflatten(0, gallery.shape[:2]).amax(dim=1)
    return torch.matmul(query, gallery.mT).amax(dim=2)
