"""Re-ranking by refined descriptors: SuperGlobal."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from zoo.checks import check_integers

if TYPE_CHECKING:
    from torch import Tensor

CONVENTIONS = ("paper", "authors")
_ROWS = 100  # of a Gram matrix computed at a time


class _Refined(NamedTuple):
    """K refined descriptors as weighted means of a shortlist's: `weights` and `members (K, 1 + P)` of each mean."""

    weights: Tensor
    members: Tensor

    def dot(self, products: Tensor) -> Tensor:
        """Returns the dot products (K,) of the means with what the shortlist has the `products (K,)` with."""
        return (self.weights * products[self.members]).sum(dim=1)

    def squared_norms(self, gram: Tensor) -> Tensor:
        pairs = gram[self.members[:, :, None], self.members[:, None, :]]
        return torch.einsum("ki,kij,kj->k", self.weights, pairs, self.weights)

    def rows(self, shortlist: Tensor, chosen: Tensor) -> Tensor:
        return torch.einsum("ki,kid->kd", self.weights[chosen], shortlist[self.members[chosen]])


def superglobal(
    query: Tensor,
    shortlist: Tensor,
    p: int,
    beta: float,
    neighbours: Tensor | None = None,
    convention: str = "paper",
) -> Tensor:
    """Returns new scores (Q, K) of shortlists: of refined items with the query and with the refined query, averaged.

    `query (Q, D)`; `shortlist (Q, K, D)`, nearest first. An item is refined by averaging it with its `p` nearest
    neighbours, which weigh `beta` times their similarity; the refined query is the maximum of the first refined items.

    `paper` (Hanning 2024, eqs. 2.5 to 2.7): similarities are cosines, the maximum is over the first p items;
    neighbours are `neighbours (Q, K, P, D)`, P >= p, nearest first and without the item itself, from the whole
    database, or, where none are passed, found inside the shortlist. `authors` (the public code of Shao et al. 2023):
    dot products; the p + 1 items of the shortlist with the largest product are averaged, the first of them, as a rule
    the item itself, with weight 1; the maximum is over the p + 1 refined items nearest to the query.
    Raises ValueError for p below 1, an unknown convention, and neighbours that don't fit.
    """
    check_integers(1, p=p)
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
    _check_shapes(query, shortlist, p, neighbours, convention)
    if not shortlist.shape[1]:
        return query.new_zeros(len(shortlist), 0)
    query, shortlist = (x if x.dtype in (torch.float32, torch.float64) else x.float() for x in (query, shortlist))
    if neighbours is not None:
        rows = zip(query, shortlist, neighbours[:, :, :p].to(shortlist.dtype), strict=True)
        return torch.stack([_with_neighbours(q, items, near, p, beta) for q, items, near in rows])
    score = _paper if convention == "paper" else _authors
    return torch.stack([score(q, items, p, beta) for q, items in zip(query, shortlist, strict=True)])


def _check_shapes(query: Tensor, shortlist: Tensor, p: int, neighbours: Tensor | None, convention: str) -> None:
    if query.dim() != 2 or shortlist.dim() != 3 or shortlist.shape[::2] != query.shape:
        shapes = f"{tuple(query.shape)} and {tuple(shortlist.shape)}"
        raise ValueError(f"query (Q, D) and shortlist (Q, K, D) must fit together, got {shapes}")
    if neighbours is None:
        return
    if convention == "authors":
        raise ValueError("neighbours must be None with the convention 'authors', which looks for them in the shortlist")
    wanted = (*shortlist.shape[:2], p, shortlist.shape[2])
    got = tuple(neighbours.shape)
    if neighbours.dim() != 4 or got[2] < p or (*got[:2], p, got[3]) != wanted:
        raise ValueError(f"neighbours must be at least {wanted}, got {got}")


def _paper(query: Tensor, shortlist: Tensor, p: int, beta: float) -> Tensor:
    # Refined descriptors are never built, but for the first p: their products and norms follow from the Gram matrix.
    gram = _gram(shortlist)
    norms = _length(gram.diagonal())
    cosines = gram / norms[:, None] / norms
    cosines.fill_diagonal_(-torch.inf)
    similarities, places = cosines.topk(min(p, len(shortlist) - 1), dim=1)
    refined = _means(similarities * beta, torch.cat([torch.arange(len(gram), device=gram.device)[:, None], places], 1))
    lengths = _length(refined.squared_norms(gram))
    expanded = refined.rows(shortlist, torch.arange(min(p, len(gram)), device=gram.device)).amax(dim=0)
    return sum(refined.dot(shortlist @ q) / lengths / _length(q @ q) for q in (query, expanded)) / 2


def _authors(query: Tensor, shortlist: Tensor, p: int, beta: float) -> Tensor:
    products, places = _gram(shortlist).topk(min(p + 1, len(shortlist)), dim=1)
    refined = _means(products[:, 1:] * beta, places)
    first = refined.dot(shortlist @ query)
    expanded = refined.rows(shortlist, first.topk(min(p + 1, len(first))).indices).amax(dim=0)
    return (first + refined.dot(shortlist @ expanded)) / 2


def _with_neighbours(query: Tensor, shortlist: Tensor, neighbours: Tensor, p: int, beta: float) -> Tensor:
    weights = beta * torch.cosine_similarity(shortlist[:, None], neighbours, dim=2)
    total = _total(torch.cat([torch.ones_like(weights[:, :1]), weights], dim=1))
    refined = (shortlist + torch.einsum("kp,kpd->kd", weights, neighbours)) / total
    expanded = refined[:p].amax(dim=0)
    return sum(torch.cosine_similarity(refined, q[None], dim=1) for q in (query, expanded)) / 2


def _gram(vectors: Tensor) -> Tensor:
    """Returns the dot products (K, K) of vectors (K, D) with one another, each computed once and mirrored."""
    gram = vectors.new_empty(len(vectors), len(vectors))
    for start in range(0, len(vectors), _ROWS):
        end = start + _ROWS
        gram[start:end, :end] = vectors[start:end] @ vectors[:end].T
        gram[:start, start:end] = gram[start:end, :start].T
    return gram


def _means(weights: Tensor, members: Tensor) -> _Refined:
    weights = torch.cat([weights.new_ones(len(members), 1), weights], dim=1)
    return _Refined(weights / _total(weights), members)


def _total(weights: Tensor) -> Tensor:
    """Returns the sums (K, 1) by which means are divided; weights of opposite descriptors can cancel."""
    total, smallest = weights.sum(dim=1, keepdim=True), torch.finfo(weights.dtype).eps
    return torch.where(total.abs() < smallest, smallest, total)


def _length(squared: Tensor) -> Tensor:
    """Returns lengths from their squares, never 0: a descriptor of zeros is similar to nothing."""
    return squared.clamp(min=0).sqrt().clamp(min=torch.finfo(squared.dtype).tiny)
