"""Losses that put a gallery into the order of the ground truth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_spearman_loss(distances: Tensor, truth: Tensor, temperature: float) -> Tensor:
    """Return 1 - Spearman's rho of every image's row against the truth, the ranks of its distances made smooth.

    An item's smooth rank is the sum of sigmoid((own distance - other distance) / (temperature · spread)) over the other
    items of the row, `spread` being the standard deviation of the row, through which no gradient flows. As the
    temperature goes to 0 this becomes the average rank. An image is left out of its own row. Memory and time grow with
    G·B³: 64 images take 2 MB a ground truth, 640 take 2 GB.

    Args:
        distances: (B, B) between the images of a batch, a row for each as the query.
        truth: (B, B) or (G, B, B) ground-truth distances; over G of them the loss is averaged.
        temperature: above 0.

    Returns:
        A scalar, 0 for the perfect order and 2 for its reverse. Rows whose truth is constant count for nothing; 0 if
        all are.

    Raises:
        ValueError: shapes don't fit, there are fewer than three images, or ``temperature`` is not positive.

    Source: Spearman's rho as in Sec. 6 of Messina et al. 2018; ranks by pairwise sigmoids as in Qin et al. 2010.
    """
    truth = truth[None] if truth.dim() == 2 else truth
    size = len(distances)
    if distances.shape != (size, size) or truth.shape[1:] != distances.shape:
        raise ValueError(f"distances (B, B) and truth (G, B, B) must fit, got {distances.shape} and {truth.shape}")
    if size < 3:
        raise ValueError(f"distances must be between at least 3 images, got {size}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    distances, truth = _without_diagonal(distances[None]), _without_diagonal(truth)
    spread = distances.detach().std(dim=-1, keepdim=True)
    spread = torch.where(spread > 0, spread, 1)  # equal distances have no scale
    ranks = torch.sigmoid(_differences(distances / spread) / temperature).sum(-1)
    wanted = _differences(truth).sign().add(1).div(2).sum(-1)  # ties get their average rank
    ranks, wanted = (values - values.mean(dim=-1, keepdim=True) for values in (ranks, wanted.to(ranks)))
    defined = wanted.abs().amax(dim=-1) > 0
    scale = (ranks.norm(dim=-1) * wanted.norm(dim=-1)).clamp_min(torch.finfo(ranks.dtype).eps)
    losses = 1 - (ranks * wanted).sum(-1) / scale
    return (losses * defined).sum() / defined.sum().clamp_min(1)


def quantized_ap_loss(
    scores: Tensor, relevance: Tensor, bins: int, low: float = -1.0, high: float = 1.0, ignore: Tensor | None = None
) -> Tensor:
    """Return 1 - the mean average precision of ranked lists, made smooth by counting in bins of the scores.

    A score belongs to the two bins whose centres are nearest, in linear shares; beyond the range, to the last bin
    there. Of scores that lie on centres, no two on one, it is the average precision itself.

    Args:
        scores: (Q, N), higher = nearer.
        relevance: (Q, N), 1 or True = relevant.
        bins: how many, at least 2; their centres lie evenly from ``high`` down to ``low``.
        low: centre of the last bin.
        high: centre of the first bin.
        ignore: (Q, N) bool, True = doesn't count at all.

    Returns:
        A scalar in 0 … 1 over the queries with at least one relevant item; 0 (with a gradient of 0) if there are none.

    Raises:
        ValueError: shapes don't fit, ``bins`` is below 2, or ``low`` isn't below ``high``.

    Source: Eqs. 2.27 to 2.34 of Hanning 2024, after Revaud et al. 2019.
    """
    if scores.dim() != 2 or relevance.shape != scores.shape:
        raise ValueError(f"scores and relevance must be (Q, N), got {tuple(scores.shape)}, {tuple(relevance.shape)}")
    if bins < 2 or not low < high:
        raise ValueError(f"bins must be at least 2 and low below high, got {bins} bins from {low} to {high}")
    relevance = relevance.to(scores.dtype)
    counted = torch.ones_like(scores) if ignore is None else (~ignore).to(scores.dtype)
    width = (high - low) / (bins - 1)
    centres = torch.linspace(high, low, bins, dtype=scores.dtype, device=scores.device)
    shares = (1 - (scores.clamp(low, high)[..., None] - centres).abs() / width).clamp(min=0) * counted[..., None]
    total, hits = shares.sum(1), (shares * relevance[..., None]).sum(1)
    precision = hits.cumsum(1) / total.cumsum(1).clamp_min(torch.finfo(scores.dtype).tiny)
    positives = (relevance * counted).sum(1)
    values = (precision * hits).sum(1) / positives.clamp_min(1)
    defined = positives > 0
    return (defined * (1 - values)).sum() / defined.sum().clamp_min(1)


def contrastive_list_loss(
    scores: Tensor, relevance: Tensor, temperature: float, ignore: Tensor | None = None, itself: bool = False
) -> Tensor:
    """Return -ln of the share that relevant items have of exp(score / temperature), the mean over queries.

    Args:
        scores: (Q, N), higher = nearer.
        relevance: (Q, N), 1 or True = relevant.
        temperature: above 0.
        ignore: (Q, N) bool, True = doesn't count at all.
        itself: count the query, whose similarity to itself is 1, among its own relevant items (the authors' code).

    Returns:
        A scalar over the queries with at least one relevant item; 0 if there are none.

    Raises:
        ValueError: shapes don't fit, or ``temperature`` is not positive.

    Source: Eq. 2.35 of Hanning 2024, after Ouyang et al. 2021.
    """
    if scores.dim() != 2 or relevance.shape != scores.shape:
        raise ValueError(f"scores and relevance must be (Q, N), got {tuple(scores.shape)}, {tuple(relevance.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    counted = torch.ones_like(scores, dtype=torch.bool) if ignore is None else ~ignore
    relevant = relevance.bool() & counted
    defined = relevant.any(1)
    if itself:
        scores = torch.cat([torch.ones_like(scores[:, :1]), scores], dim=1)
        relevant, counted = (F.pad(each, (1, 0), value=True) for each in (relevant, counted))
    scaled = scores[defined] / temperature
    both = [scaled.masked_fill(~which[defined], -torch.inf).logsumexp(1) for which in (counted, relevant)]
    return (both[0] - both[1]).sum() / defined.sum().clamp_min(1)


def _without_diagonal(values: Tensor) -> Tensor:
    """Return (G, B, B - 1) of (G, B, B)."""
    groups, size, _ = values.shape
    return values.reshape(groups, -1)[:, 1:].reshape(groups, size - 1, size + 1)[..., :-1].reshape(groups, size, -1)


def _differences(rows: Tensor) -> Tensor:
    return rows[..., :, None] - rows[..., None, :]
