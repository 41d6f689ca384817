"""Mean precision at a cut-off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.metrics.functional import precision_at_k
from zoo.metrics.functional.checks import check_cutoff
from zoo.metrics.relevance_mean import RelevanceMean

if TYPE_CHECKING:
    from torch import Tensor


class RetrievalPrecision(RelevanceMean):
    """Averages `functional.precision_at_k` over queries; mean, interval and `per_query` as in `QueryMean`.

    `k` is the cut-off; `capped` lowers it to the rank of the last relevant item. Raises ValueError for a `k` below 1.
    """

    def __init__(self, *, k: int, capped: bool, per_query: bool, **kwargs: Any) -> None:
        check_cutoff(k)
        super().__init__(f"mp@{k}" if capped else f"p@{k}", per_query=per_query, **kwargs)
        self.k, self.capped = k, capped

    def measure(self, scores: Tensor, relevant: Tensor, ignore: Tensor | None, n_relevant: Tensor | None) -> Tensor:
        """See `RelevanceMean`."""
        return precision_at_k(scores, relevant, self.k, ignore, self.capped, n_relevant)


export = RetrievalPrecision
