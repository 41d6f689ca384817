"""Mean reciprocal rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from zoo.metrics.query_mean import QueryMean

if TYPE_CHECKING:
    from torch import Tensor


class ReciprocalRank(QueryMean):
    """Averages 1 / rank of the first relevant item over the queries that have one."""

    def __init__(self, *, per_query: bool, **kwargs: Any) -> None:
        super().__init__("mrr", per_query=per_query, **kwargs)

    def update(
        self, scores: Tensor, relevant: Tensor, ignore: Tensor | None = None, query: Tensor | None = None
    ) -> None:
        """Adds queries: `scores`, `relevant` and `ignore` (Q, N), ids `query (Q,)` int64."""
        kept = torch.ones_like(relevant) if ignore is None else ~ignore
        best = scores.double().masked_fill(~(relevant & kept), -torch.inf).amax(1, keepdim=True)
        ahead = ((scores > best) & kept).sum(1)
        self.add(torch.where((relevant & kept).any(1), 1 / (1 + ahead.double()), torch.nan), query)
