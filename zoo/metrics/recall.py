"""Mean recall at a cut-off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.metrics.functional import recall_at_k
from zoo.metrics.functional.checks import check_cutoff
from zoo.metrics.relevance_mean import RelevanceMean

if TYPE_CHECKING:
    from torch import Tensor


class RetrievalRecall(RelevanceMean):
    """Averages `functional.recall_at_k` over queries; mean, interval and `per_query` as in `QueryMean`.

    `k` is the cut-off; `any_hit` asks whether any relevant item is found, else which share of them. Raises ValueError
    for a `k` below 1.
    """

    def __init__(self, *, k: int, any_hit: bool, per_query: bool, **kwargs: Any) -> None:
        check_cutoff(k)
        super().__init__(f"recall@{k}" if any_hit else f"recall_fraction@{k}", per_query=per_query, **kwargs)
        self.k, self.any_hit = k, any_hit

    def measure(self, scores: Tensor, relevant: Tensor, ignore: Tensor | None, n_relevant: Tensor | None) -> Tensor:
        """See `RelevanceMean`."""
        return recall_at_k(scores, relevant, self.k, ignore, n_relevant, self.any_hit)


export = RetrievalRecall
