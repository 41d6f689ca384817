"""The nearest gallery images of many queries, tile by tile, so that no whole matrix of similarities is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from zoo.checks import check_integers
from zoo.progress import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

_QUERIES, _ITEMS = 512, 16384  # sides of a tile of similarities: 32 MB


def nearest(queries: Tensor, gallery: Tensor, k: int, title: str = "mining") -> tuple[Tensor, Tensor]:
    """Returns positions (Q, K) int64 of the k nearest of `gallery (N, D)` by cosine, and their similarities (Q, K).

    Nearest first, K = min(k, N). Runs on the first GPU where there is one. Memory beside
    arguments and results: one tile of similarities and two blocks of descriptors, in full precision. Shows a bar called
    `title`. Raises ValueError for k below 1 and for shapes that don't fit.
    """
    check_integers(1, k=k)
    if queries.dim() != 2 or gallery.dim() != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(f"queries and gallery must be (Q, D) and (N, D), got {queries.shape} and {gallery.shape}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = min(k, len(gallery))
    places = torch.empty(len(queries), count, dtype=torch.int64)
    scores = torch.empty(len(queries), count)
    with progress_bar(title, len(queries)) as advance:
        for start in range(0, len(queries), _QUERIES):
            part = F.normalize(queries[start : start + _QUERIES].to(device).float(), dim=1)
            own = slice(start, start + len(part))
            scores[own], places[own] = _best(part, gallery, count)
            advance(len(part))
    return places, scores


def _best(queries: Tensor, gallery: Tensor, count: int) -> tuple[Tensor, Tensor]:
    scores = queries.new_empty(len(queries), 0)
    places = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(gallery), _ITEMS):
        tile = queries @ F.normalize(gallery[start : start + _ITEMS].to(queries.device).float(), dim=1).T
        found, at = tile.topk(min(count, tile.shape[1]), dim=1)
        scores, places = torch.cat([scores, found], dim=1), torch.cat([places, at + start], dim=1)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
        scores, places = scores.gather(1, order), places.gather(1, order)
    return scores, places
