"""What of the network becomes a descriptor, and by which rule or learned attention many vectors become one."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = ("relation", "conv")
AGGREGATIONS = ("max", "avg")
LEARNED = "learned"


class Pooling(NamedTuple):
    """What of the network becomes a descriptor, and how.

    `feature` is ``relation`` (the question-free g of all pairs) or ``conv`` (the positions of the last convolution
    map); `aggregation` is ``max``, ``avg`` or, of relations, ``learned``; with `pair_norm` each vector is L2-normalised
    before.
    """

    feature: str
    aggregation: str
    pair_norm: bool = False


def pool(items: Tensor, aggregation: str, pair_norm: bool) -> Tensor:
    """Aggregate (B, N, D) to (B, D) by ``max`` or ``avg``, each vector L2-normalised before if ``pair_norm``.

    Raises:
        ValueError: an unknown aggregation.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}, got {aggregation!r}")
    items = F.normalize(items, dim=-1) if pair_norm else items
    return items.amax(dim=1) if aggregation == "max" else items.mean(dim=1)


class AttentionPool(nn.Module):
    """Attend to the pairs that matter and describe the image by them.

    Every head weighs the pairs by a softmax over all of them and averages their values; the heads' averages are
    projected to the descriptor. All weights are equal at first, so that training starts from ``avg``.

    Args:
        width: D, components of a pair's relation.
        heads: weighted averages taken side by side.
        hidden: components of a pair's key and value.
        out: components of the descriptor.

    Source: ours. Messina et al. 2018 (Sec. 7) plan "a differentiable aggregation function inside the network".
    """

    def __init__(self, width: int, heads: int, hidden: int, out: int) -> None:
        super().__init__()
        # The relations come from a frozen network: a plain average over all batches is their best statistic.
        self.standardise = nn.BatchNorm1d(width, affine=False, momentum=None)
        self.key = nn.Linear(width, hidden)
        self.query = nn.Linear(hidden, heads, bias=False)
        self.value = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden * heads, out)
        nn.init.zeros_(self.query.weight)

    def forward(self, pairs: Tensor) -> Tensor:
        """Aggregate (B, P, D) to (B, out)."""
        pairs = self.standardise(pairs.flatten(0, 1)).view_as(pairs)
        weights = self.query(torch.tanh(self.key(pairs))).softmax(dim=1)
        return self.out((weights.transpose(1, 2) @ self.value(pairs)).flatten(1))
