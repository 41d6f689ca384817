"""Losses that put a gallery into the order of the ground truth."""

from __future__ import annotations

import torch
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


def _without_diagonal(values: Tensor) -> Tensor:
    """Return (G, B, B - 1) of (G, B, B)."""
    groups, size, _ = values.shape
    return values.reshape(groups, -1)[:, 1:].reshape(groups, size - 1, size + 1)[..., :-1].reshape(groups, size, -1)


def _differences(rows: Tensor) -> Tensor:
    return rows[..., :, None] - rows[..., None, :]
