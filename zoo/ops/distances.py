"""Distances and similarities between sets of descriptors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_GALLERY_BLOCK = 2048  # rows converted to float64 at a time: raw pixels of a whole gallery would take gigabytes
_GALLERY_NUMBERS = 1 << 26  # and of these at most half a gigabyte
_LONG = 1024  # components from which a matrix product pays
_SAME = 1e-11  # squared distance over squared norms below which two long descriptors are taken as equal
_DECIMALS = 9
_BITS = 1 << 20
_TINY = 1e-300


def l2_distances(queries: Tensor, gallery: Tensor, normalised: bool = False) -> Tensor:
    """Returns Euclidean distances (Q, N) in float64 between `queries (Q, D)` and `gallery (N, D)` of any number type.

    With `normalised`, descriptors are L2-normalised before; one of zeros stays as it is.
    Short descriptors are compared by their differences, long ones (raw pixels) through a matrix product, in which
    integers stay exact. Distances are rounded to nine decimals of a query's largest one: what is equal on paper
    (duplicates, permuted or L2-normalised binary descriptors) must tie, whatever the order of summation.
    """
    prepare = _normalised if normalised else torch.Tensor.double
    queries = prepare(queries)
    distances = _by_product if queries.shape[1] > _LONG else _by_difference
    rows_at_once = max(1, min(_GALLERY_BLOCK, _GALLERY_NUMBERS // max(1, queries.shape[1])))
    blocks = [distances(queries, prepare(rows)) for rows in gallery.split(rows_at_once)]
    return _rounded(torch.cat(blocks, dim=1))


def dot_products(queries: Tensor, gallery: Tensor) -> Tensor:
    """Returns dot products (Q, N) in float64 of `queries (Q, D)` and `gallery (N, D)` of any number type.

    They are rounded to nine decimals of a query's largest one, for the reasons of `l2_distances`: what is equal on
    paper ties, and how many queries are multiplied at a time changes nothing.
    """
    queries = queries.double()
    return _rounded(torch.cat([queries @ rows.double().T for rows in gallery.split(_GALLERY_BLOCK)], dim=1))


def cosine_similarities(queries: Tensor, gallery: Tensor) -> Tensor:
    """Returns cosine similarities (Q, N) in float64, rounded as `dot_products`; 0 for a descriptor of zeros."""
    queries = _normalised(queries)
    blocks = [queries @ _normalised(rows).T for rows in gallery.split(_GALLERY_BLOCK)]
    return _rounded(torch.cat(blocks, dim=1))


def _normalised(rows: Tensor) -> Tensor:
    return F.normalize(rows.double(), dim=1, eps=_TINY)


def _rounded(found: Tensor) -> Tensor:
    if not found.numel():
        return found
    # A few bits of the largest one, so that it, too, is the same whatever the order of summation.
    mantissa, exponent = found.abs().amax(dim=1, keepdim=True).frexp()
    largest = torch.ldexp((mantissa * _BITS).round() / _BITS, exponent).clamp(min=_TINY)
    return (found / largest).round(decimals=_DECIMALS) * largest


def _by_difference(queries: Tensor, gallery: Tensor) -> Tensor:
    return torch.cdist(queries, gallery, compute_mode="donot_use_mm_for_euclid_dist")


def _by_product(queries: Tensor, gallery: Tensor) -> Tensor:
    norms = queries.square().sum(1)[:, None] + gallery.square().sum(1)
    squared = norms - 2 * queries @ gallery.T
    return squared.where(squared > _SAME * norms, 0).sqrt()
