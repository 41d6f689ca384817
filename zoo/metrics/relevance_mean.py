"""What the means over rankings of relevant, irrelevant and junk items share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.metrics.query_mean import QueryMean

if TYPE_CHECKING:
    from torch import Tensor


class RelevanceMean(QueryMean):
    """Averages a value of each query's ranking; a subclass gives it by `measure`."""

    def measure(self, scores: Tensor, relevant: Tensor, ignore: Tensor | None, n_relevant: Tensor | None) -> Tensor:
        """Returns one value per query (Q,) float64, NaN where undefined."""
        raise NotImplementedError(f"{type(self).__name__} must implement measure(scores, relevant, ignore, n_relevant)")

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
        self.add(self.measure(scores, relevant, ignore, n_relevant), query)
