"""Second-order pooling: from the cells of a region to the logarithm of their average outer product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def second_order_pool(x: Tensor, masks: Tensor, weights: Tensor, eps: float, isometric: bool = False) -> Tensor:
    """Pool the cells of each region to the matrix logarithm of their weighted average of outer products.

    Works in float64, all regions of the batch in one decomposition. Gradients are those of `torch.linalg.eigh`: they
    need distinct eigenvalues, so regions of at least C cells.

    Args:
        x: (B, C, H, W), the cells' local descriptors.
        masks: (B, R, H, W), bool or numbers: how far a cell belongs to a region.
        weights: (B, H, W), at least 0. A region whose weights are all 0 counts its cells alike.
        eps: what is added to the diagonal before the logarithm, in units of the average eigenvalue, above 0. A region
            with fewer than C cells would have eigenvalues of 0 without it.
        isometric: multiplies what stands off the diagonal by √2, so that dot products of the results are those of the
            matrices. The paper doesn't.

    Returns:
        (B, R, C(C+1)/2) float64: the upper triangle row by row; no final L2. A region without any activation gives the
        logarithm of a tiny multiple of the identity.

    Raises:
        ValueError: a shape doesn't fit the others, or ``eps`` isn't above 0.

    Source: Eq. 5 of Jeong et al. 2017, "Regional deep feature aggregation for image retrieval"; Carreira et al. 2012.
    """
    _check(x, masks, weights, eps)
    average = _average_outer_products(x.double().flatten(2), _shares(masks, weights))
    ridge = eps * average.diagonal(dim1=-2, dim2=-1).mean(-1)
    logarithm = matrix_logarithm(average, ridge.clamp(min=torch.finfo(torch.float64).tiny))
    rows, columns = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    upper = logarithm[..., rows, columns]
    return upper * torch.where(rows == columns, 1.0, 2**0.5).to(upper) if isometric else upper


def matrix_logarithm(matrices: Tensor, ridge: Tensor) -> Tensor:
    """Return the logarithms of G + ridge · I of symmetric matrices G (..., C, C) without negative eigenvalues.

    `ridge (...)` is above 0. All matrices are decomposed in one call, in their own precision.
    """
    values, vectors = torch.linalg.eigh(matrices)
    # Rounding leaves eigenvalues of a singular matrix slightly below zero.
    logarithms = (values.clamp(min=0) + ridge[..., None]).log()
    return (vectors * logarithms[..., None, :]) @ vectors.mT


def _check(x: Tensor, masks: Tensor, weights: Tensor, eps: float) -> None:
    if x.dim() != 4:
        raise ValueError(f"x must be (B, C, H, W), got shape {tuple(x.shape)}")
    batch, (height, width) = len(x), x.shape[2:]
    if masks.dim() != 4 or (len(masks), *masks.shape[2:]) != (batch, height, width):
        raise ValueError(f"masks must be ({batch}, R, {height}, {width}), got shape {tuple(masks.shape)}")
    if weights.shape != (batch, height, width):
        raise ValueError(f"weights must be ({batch}, {height}, {width}), got shape {tuple(weights.shape)}")
    if not eps > 0:
        raise ValueError(f"eps must be above 0, got {eps}")


def _shares(masks: Tensor, weights: Tensor) -> Tensor:
    """Returns what each cell adds to the average of each region, (B, R, HW), summing to 1."""
    members = masks.flatten(2).double()
    weighted = members * weights.flatten(1)[:, None].double()
    weighted = torch.where(weighted.sum(-1, keepdim=True) > 0, weighted, members)
    return weighted / weighted.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def _average_outer_products(x: Tensor, shares: Tensor) -> Tensor:
    """Returns (B, R, C, C) from cells (B, C, HW) and shares (B, R, HW)."""
    found = [_average(one, share) for one, of_regions in zip(x, shares, strict=True) for share in of_regions]
    return torch.stack(found).unflatten(0, shares.shape[:2])


def _average(x: Tensor, share: Tensor) -> Tensor:
    inside = share.nonzero()[:, 0]  # most regions hold less than half of the cells
    cells = x[:, inside] if len(inside) < len(share) else x
    return (cells * share[inside]) @ cells.mT
