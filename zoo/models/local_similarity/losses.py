"""What the head is trained by: all positive pairs of a batch, and the negative ones that it finds hardest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.models.local_similarity.head import Found

Loss = Literal["triplet", "cls", "cls+loc"]


def similarity(logits: Tensor) -> Tensor:
    """Returns (B,): the probability that the query is in the gallery image, of `logits` (B, 2)."""
    return torch.sigmoid(logits[:, 1] - logits[:, 0])


def negative_pairs(objects: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the positions (P,) of queries and of galleries of all pairs that show different `objects` (B,)."""
    return torch.nonzero(objects[:, None] != objects, as_tuple=True)


def pair_loss(positives: Found, negatives: Found, targets: Tensor, loss: Loss, weight: float, margin: float) -> Tensor:
    """Returns the loss of pairs of one object and of others, a scalar.

    `cls` is the cross entropy over both kinds; `cls+loc` adds `weight` times smooth L1 between boxes and `targets`
    (B, 4), of the positive pairs and divided by their number (eq. 8 of Chen et al. 2019, λ = 0.05); `triplet` asks that
    each positive pair be at least `margin` more similar than each of the negatives.
    """
    if loss == "triplet":
        gaps = similarity(negatives.logits) - similarity(positives.logits)[:, None]
        return (gaps + margin).clamp(min=0).sum() / max(1, gaps.numel())  # a batch of one object has no negatives
    logits = torch.cat([positives.logits, negatives.logits])
    there = torch.arange(len(logits), device=logits.device) < len(positives.logits)
    classified = F.cross_entropy(logits, there.long())
    if loss == "cls":
        return classified
    located = F.smooth_l1_loss(positives.boxes, targets, reduction="sum") / len(targets)
    return classified + weight * located
