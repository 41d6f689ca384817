"""Mean normalised discounted cumulative gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.metrics.functional import ndcg
from zoo.metrics.functional.graded import check_gain
from zoo.metrics.query_mean import QueryMean

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.metrics.functional.graded import Gain


class RetrievalNDCG(QueryMean):
    """Averages `functional.ndcg` over queries; mean, interval and `per_query` as in `QueryMean`.

    `k` cuts rankings off, None keeps them whole; `gain` "linear" or "exponential". Raises ValueError for settings that
    `ndcg` refuses.
    """

    def __init__(self, *, k: int | None, gain: Gain, per_query: bool, **kwargs: Any) -> None:
        check_gain(gain, k)
        name = "ndcg" if gain == "linear" else "ndcg_exp"
        super().__init__(name if k is None else f"{name}@{k}", per_query=per_query, **kwargs)
        self.k, self.gain = k, gain

    def update(
        self,
        scores: Tensor,
        gains: Tensor,
        ignore: Tensor | None = None,
        ideal: Tensor | None = None,
        query: Tensor | None = None,
    ) -> None:
        """Adds queries: tensors as in `functional.ndcg`, ids `query (Q,)` int64.

        Raises ValueError as that function does, and for ids that do not fit, or that `per_query` needs and are missing.
        """
        self.add(ndcg(scores, gains, self.k, ignore, self.gain, ideal), query)


export = RetrievalNDCG
