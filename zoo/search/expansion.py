"""Query expansion and database augmentation: descriptors averaged with those of their nearest images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.checks import check_integers

_CELLS = 1 << 24  # similarities or numbers of neighbours held at once


def expand_query(query: Tensor, neighbours: Tensor, alpha: float = 0.0) -> Tensor:
    """Returns queries (Q, D) averaged with their neighbours: AQE for `alpha` 0, αQE above.

    `query (Q, D)`, `neighbours (Q, K, D)`. A neighbour weighs max(0, cosine similarity to the query) ** alpha, the
    query 1. Descriptors are averaged as they are: L2-normalise them where they are compared by cosine. Raises
    ValueError for a negative alpha and for shapes that don't fit. Eqs. 2.3 and 2.4 of Hanning 2024 (Chum et al. 2007;
    Radenović et al. 2018).
    """
    if alpha < 0:
        raise ValueError(f"alpha must be at least 0, got {alpha}")
    query, neighbours = _real(query), _real(neighbours)
    if query.dim() != 2 or neighbours.dim() != 3 or neighbours.shape[::2] != query.shape:
        shapes = f"{tuple(query.shape)} and {tuple(neighbours.shape)}"
        raise ValueError(f"query (Q, D) and neighbours (Q, K, D) must fit together, got {shapes}")
    similarities = F.cosine_similarity(query[:, None], neighbours, dim=2)
    weights = similarities.clamp(min=0).pow(alpha)
    return (query + torch.einsum("qk,qkd->qd", weights, neighbours)) / (1 + weights.sum(dim=1, keepdim=True))


def augment_database(vectors: Tensor, k: int, alpha: float = 0.0) -> Tensor:
    """Returns every vector averaged with its k nearest others, as `expand_query` does, L2-normalised (N, D).

    `vectors (N, D)`; nearest by cosine similarity; the vector itself is none of the k. Works in blocks of rows. Raises
    ValueError for k below 1. Database-side augmentation, Turcot and Lowe 2009, Arandjelović and Zisserman 2012.
    """
    check_integers(1, k=k)
    vectors = _real(vectors)
    count, dimension = vectors.shape
    unit, k = F.normalize(vectors, dim=1), min(k, count - 1)
    augmented = torch.empty_like(vectors)
    for rows in torch.arange(count).split(max(1, _CELLS // max(count, k * dimension, 1))):
        similarities = unit[rows] @ unit.T
        similarities[torch.arange(len(rows)), rows] = -torch.inf
        nearest = similarities.topk(max(k, 0), dim=1).indices
        augmented[rows] = expand_query(vectors[rows], vectors[nearest], alpha)
    return F.normalize(augmented, dim=1)


def regional_qe(query: Tensor, neighbours: Tensor) -> Tensor:
    """Returns the L2-normalised mean (Q, D) of the region of each neighbour that matches the query best.

    `query (Q, R, D)` and `neighbours (Q, K, S, D)` hold regions; the best one of an image is in the pair with the
    largest cosine similarity to any region of the query, of equal ones the first. The query itself isn't averaged in;
    without neighbours it is its own region 0. Sec. 4.2 of Jeong et al. 2017.
    """
    query, neighbours = _real(query), _real(neighbours)
    if not neighbours.shape[1]:
        return F.normalize(query[:, 0], dim=1)
    pairs = torch.einsum("qrd,qksd->qksr", F.normalize(query, dim=-1), F.normalize(neighbours, dim=-1))
    best = pairs.amax(dim=-1).argmax(dim=-1)
    return F.normalize(neighbours.take_along_dim(best[..., None, None], dim=2).squeeze(2).mean(dim=1), dim=1)


def _real(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
