"""Mean Spearman correlation over queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.metrics.functional import spearman
from zoo.metrics.query_mean import QueryMean

if TYPE_CHECKING:
    from torch import Tensor


class RankSpearman(QueryMean):
    """Averages Spearman's correlation over queries; mean, interval and `per_query` as in `QueryMean`."""

    def __init__(self, *, per_query: bool, **kwargs: Any) -> None:
        super().__init__("spearman", per_query=per_query, **kwargs)

    def update(self, a: Tensor, b: Tensor, ignore: Tensor | None = None, query: Tensor | None = None) -> None:
        """Adds queries: `a (Q, N)`, `b (Q, N)` and `ignore (Q, N)` as in `functional.spearman`, ids `query (Q,)` int64.

        Raises ValueError as `functional.spearman` does, and for ids that `per_query` needs and that are missing or do
        not fit.
        """
        self.add(spearman(a, b, ignore), query)


export = RankSpearman
