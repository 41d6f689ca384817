"""Similarities of feature maps by the correspondence of their locations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def correlation_volume(gallery: Tensor, query: Tensor) -> Tensor:
    """Returns (B, Hq*Wq, Hg, Wg): the dot product of every location of the query with every one of the gallery map.

    `gallery (B, D, Hg, Wg)`, `query (B, D, Hq, Wq)`, either with B = 1 for all of the other's. Channel y * Wq + x
    belongs to the query's location (y, x), row-major as in eq. 4 of Chen et al. 2019; products are those of eq. 3,
    without ReLU or normalisation, so L2-normalise locations first. Raises ValueError as `r_match`.
    """
    _check(gallery, query)
    if query.shape[0] == 1:  # one product for all images
        products = torch.matmul(query[0].flatten(1).mT, gallery.flatten(2))
    else:
        products = torch.matmul(query.flatten(2).mT, gallery.flatten(2))
    return products.unflatten(2, gallery.shape[2:])


def all_correlation_volumes(galleries: Tensor, queries: Tensor) -> Tensor:
    """Returns (N, Q, Hq*Wq, Hg, Wg): `correlation_volume` of every one of `galleries (N, D, Hg, Wg)` with every query.

    `queries (Q, D, Hq, Wq)`. Raises ValueError as `r_match`.
    """
    _check(galleries, queries)
    rows = queries.flatten(2).mT.flatten(0, 1)
    products = torch.matmul(rows, galleries.flatten(2))
    return products.unflatten(2, galleries.shape[2:]).unflatten(1, (len(queries), -1))


def r_match(gallery: Tensor, query: Tensor) -> Tensor:
    """Returns (B,): each location of the query finds its best one in the gallery map, and these products are added up.

    `gallery (B, D, Hg, Wg)`, `query (B, D, Hq, Wq)`; locations are compared by their dot products as they are, so
    L2-normalise them first. Either may have B = 1. Raises ValueError for other dimensions D. Eq. 2 of Chen et al. 2019
    (Razavian et al. 2014); the order of the locations plays no part in it.
    """
    _check(gallery, query)
    return best_products(gallery.flatten(2).mT, query.flatten(2).mT).sum(dim=1)


def best_in_volume(volumes: Tensor) -> Tensor:
    """Returns (B, Hq*Wq): the largest product of each location of the query, of `volumes (B, Hq*Wq, Hg, Wg)`.

    Their sum is `r_match` of the maps that the volumes were made of.
    """
    return volumes.flatten(2).amax(dim=2)


def shuffled_cells(maps: Tensor, block: int) -> Tensor:
    """Returns `maps (B, D, H, W)` with square blocks of `block` cells at random places, each map in its own order.

    What doesn't fill a block at the right and lower border stays where it is. Random numbers are those of torch's
    default generator.
    """
    batch, channels, height, width = maps.shape
    rows, columns = height // block, width // block
    if rows * columns < 2:
        return maps.clone()
    order = torch.rand(batch, rows * columns, device=maps.device).argsort(dim=1)
    whole = maps[:, :, : rows * block, : columns * block]
    blocks = whole.reshape(batch, channels, rows, block, columns, block).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = blocks[torch.arange(batch, device=maps.device)[:, None], order].unflatten(1, (rows, columns))
    result = maps.clone()
    result[:, :, : rows * block, : columns * block] = moved.permute(0, 3, 1, 4, 2, 5).reshape(whole.shape)
    return result


def best_products(gallery: Tensor, query: Tensor) -> Tensor:
    """Returns (B, R): for each of `query (B, R, D)` the largest dot product with any of `gallery (B, S, D)`."""
    if gallery.shape[0] != 1 and query.shape[0] == 1:  # one product of all, instead of one per image
        products = gallery.flatten(0, 1) @ query[0].mT
        return products.unflatten(0, gallery.shape[:2]).amax(dim=1)
    return torch.matmul(query, gallery.mT).amax(dim=2)


def _check(gallery: Tensor, query: Tensor) -> None:
    if gallery.dim() != 4 or query.dim() != 4 or gallery.shape[1] != query.shape[1]:
        shapes = f"{tuple(gallery.shape)} and {tuple(query.shape)}"
        raise ValueError(f"gallery (B, D, Hg, Wg) and query (B, D, Hq, Wq) must have the same D, got {shapes}")
