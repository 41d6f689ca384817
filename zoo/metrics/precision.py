"""Mean precision at a cut-off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.metrics.functional import precision_at_k
from zoo.metrics.functional.checks import check_cutoff
from zoo.metrics.query_mean import QueryMean

if TYPE_CHECKING:
    from torch import Tensor


class RetrievalPrecision(QueryMean):
    """Averages `functional.precision_at_k` over queries; mean, interval and `per_query` as in `QueryMean`.

    `k` is the cut-off; `capped` lowers it to the rank of the last relevant item. Raises ValueError for a `k` below 1.
    """

    def __init__(self, *, k: int, capped: bool, per_query: bool, **kwargs: Any) -> None:
        check_cutoff(k)
        super().__init__(f"mp@{k}" if capped else f"p@{k}", per_query=per_query, **kwargs)
        self.k, self.capped = k, capped

    def update(
        self,
        scores: Tensor,
        relevant: Tensor,
        ignore: Tensor | None = None,
        n_relevant: Tensor | None = None,
        query: Tensor | None = None,
    ) -> None:
        """Adds queries: tensors as in `functional.precision_at_k`, ids `query (Q,)` int64.

        Raises ValueError as that function does, and for ids that do not fit, or that `per_query` needs and are missing.
        """
        self.add(precision_at_k(scores, relevant, self.k, ignore, self.capped, n_relevant), query)


export = RetrievalPrecision
