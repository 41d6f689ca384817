"""Affinity features: an image described by how similar it is to the first images of a ranked list."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def affinity_features(descriptors: Tensor, anchors: int, valid: Tensor | None = None) -> Tensor:
    """Return the cosine similarities of each image with the anchors: the query and the first images of its list.

    Args:
        descriptors: (B, 1+K, D), the query first, then its hits, nearest first. They needn't be normalised.
        anchors: L, how many hits are anchors beside the query, at least 1. Where the list is shorter, similarities with
            the anchors that it lacks are 0.
        valid: (B, K) bool, False where a list has ended; None where all have K hits.

    Returns:
        (B, 1+K, 1+L).

    Raises:
        ValueError: ``descriptors`` has not three dimensions, or ``anchors`` is below 1.

    Source: Eq. 2.8 of Hanning 2024, after Ouyang et al. 2021.
    """
    if descriptors.dim() != 3:
        raise ValueError(f"descriptors must be (B, 1+K, D), got {tuple(descriptors.shape)}")
    if anchors < 1:
        raise ValueError(f"anchors must be at least 1, got {anchors}")
    unit = F.normalize(descriptors, dim=2)
    features = unit @ unit[:, : 1 + anchors].mT
    if valid is not None:
        features = features.masked_fill(~F.pad(valid, (1, 0), value=True)[:, None, : 1 + anchors], 0)
    return F.pad(features, (0, 1 + anchors - features.shape[2]))


def without_mean(descriptors: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return (B, 1+K, D) without what a query and its hits have in common: their mean, over those that exist.

    Behind a ReLU all cosines lie near 1; without the mean they lie around 0 for descriptors of any origin.
    ``valid`` as for `affinity_features`.
    """
    if valid is None:
        return descriptors - descriptors.mean(1, keepdim=True)
    exist = F.pad(valid, (1, 0), value=True)[..., None].to(descriptors.dtype)
    return descriptors - (descriptors * exist).sum(1, keepdim=True) / exist.sum(1, keepdim=True)


def fitted_anchors(affinities: Tensor, anchors: int) -> Tensor:
    """Return affinities (..., L') with L anchors: the first, or with 0 for those that are not there."""
    affinities = affinities[..., :anchors]
    return F.pad(affinities, (0, anchors - affinities.shape[-1]))


def with_query_row(affinities: Tensor) -> Tensor:
    """Return (B, 1+K, L) of (B, K, L): of the query nothing is known but its looks, p0 = 0 (Sec. 2.3.1)."""
    return torch.cat([torch.zeros_like(affinities[:, :1]), affinities], dim=1)
