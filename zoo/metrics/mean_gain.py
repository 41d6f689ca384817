"""Mean grade of the items at the top of rankings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from zoo.metrics.functional.checks import check_cutoff
from zoo.metrics.query_mean import QueryMean

if TYPE_CHECKING:
    from torch import Tensor


class MeanGain(QueryMean):
    """Averages the grades of the first `k` items over each query's ranking, then over queries.

    As subjects' scores are averaged in Sec. 4.2 of Furuta et al. 2018. A ranking of fewer items is averaged over those
    that it has. Mean, interval and `per_query` as in `QueryMean`. Raises ValueError for a `k` below 1.
    """

    def __init__(self, *, k: int, per_query: bool, **kwargs: Any) -> None:
        check_cutoff(k)
        super().__init__(f"gain@{k}", per_query=per_query, **kwargs)
        self.k = k

    def update(
        self,
        scores: Tensor,
        gains: Tensor,
        ignore: Tensor | None = None,
        query: Tensor | None = None,
    ) -> None:
        """Adds queries: tensors as in `functional.ndcg`, ids `query (Q,)` int64; NaN where nothing is ranked."""
        ranked = torch.ones_like(gains, dtype=torch.bool) if ignore is None else ~ignore
        # What is left out comes last, whatever its score.
        order = scores.double().masked_fill(~ranked, -torch.inf).argsort(dim=1, descending=True, stable=True)
        order = order.gather(1, (~ranked).gather(1, order).to(torch.uint8).argsort(dim=1, stable=True))[:, : self.k]
        counted = ranked.gather(1, order)
        total = (gains.gather(1, order) * counted).sum(1, dtype=torch.float64)
        self.add(total / counted.sum(1), query)
