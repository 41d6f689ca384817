"""Mean average precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.metrics.functional import average_precision
from zoo.metrics.functional.relevance import check_convention
from zoo.metrics.query_mean import QueryMean

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.metrics.functional.relevance import Convention


class RetrievalMAP(QueryMean):
    """Averages `functional.average_precision` over queries; mean, interval and `per_query` as in `QueryMean`.

    `k` cuts rankings off, None keeps them whole; `convention` "finite" or "trapezoid". Raises ValueError for settings
    that `average_precision` refuses.
    """

    def __init__(self, *, k: int | None, convention: Convention, per_query: bool, **kwargs: Any) -> None:
        check_convention(convention, k)
        name = "map" if convention == "finite" else f"map_{convention}"
        super().__init__(name if k is None else f"{name}@{k}", per_query=per_query, **kwargs)
        self.k, self.convention = k, convention

    def update(
        self,
        scores: Tensor,
        relevant: Tensor,
        ignore: Tensor | None = None,
        n_relevant: Tensor | None = None,
        query: Tensor | None = None,
    ) -> None:
        """Adds queries: tensors as in `functional.average_precision`, ids `query (Q,)` int64.

        Raises ValueError as that function does, and for ids that do not fit, or that `per_query` needs and are missing.
        """
        self.add(average_precision(scores, relevant, ignore, self.k, n_relevant, self.convention), query)


export = RetrievalMAP
