"""Mean average precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.metrics.functional import average_precision
from zoo.metrics.functional.relevance import check_convention
from zoo.metrics.relevance_mean import RelevanceMean

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.metrics.functional.relevance import Convention


class RetrievalMAP(RelevanceMean):
    """Averages `functional.average_precision` over queries; mean, interval and `per_query` as in `QueryMean`.

    `k` cuts rankings off, None keeps them whole; `convention` "finite" or "trapezoid". Raises ValueError for settings
    that `average_precision` refuses.
    """

    def __init__(self, *, k: int | None, convention: Convention, per_query: bool, **kwargs: Any) -> None:
        check_convention(convention, k)
        name = "map" if convention == "finite" else f"map_{convention}"
        super().__init__(name if k is None else f"{name}@{k}", per_query=per_query, **kwargs)
        self.k, self.convention = k, convention

    def measure(self, scores: Tensor, relevant: Tensor, ignore: Tensor | None, n_relevant: Tensor | None) -> Tensor:
        """See `RelevanceMean`."""
        return average_precision(scores, relevant, ignore, self.k, n_relevant, self.convention)


export = RetrievalMAP
